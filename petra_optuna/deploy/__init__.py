"""A model becomes the file that ships, and the file is held to what it promises."""

from petra_optuna.deploy.artifact import Artifact
from petra_optuna.deploy.convolutions import CONV1D, CONV2D
from petra_optuna.deploy.export import export_onnx
from petra_optuna.deploy.lower import lower
from petra_optuna.deploy.onnxruntime import OnnxRuntimeModel
from petra_optuna.deploy.parity import check_parity

__all__ = ["CONV1D", "CONV2D", "Artifact", "OnnxRuntimeModel", "check_parity", "export_onnx", "lower"]
