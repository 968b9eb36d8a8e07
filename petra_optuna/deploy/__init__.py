"""A model becomes the file that ships, and the file is held to what it promises."""

from petra_optuna.deploy.artifact import Artifact
from petra_optuna.deploy.convolutions import IMAGES, SERIES
from petra_optuna.deploy.export import export_onnx
from petra_optuna.deploy.lower import lower
from petra_optuna.deploy.onnxruntime import OnnxRuntimeModel
from petra_optuna.deploy.parity import check_parity

__all__ = ["IMAGES", "SERIES", "Artifact", "OnnxRuntimeModel", "check_parity", "export_onnx", "lower"]
