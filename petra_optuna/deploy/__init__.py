"""Lowering: a model becomes the file that ships, and the file is checked for what it promises."""

from petra_optuna.deploy.convolutions import CONV1D, CONV2D
from petra_optuna.deploy.export import export_onnx
from petra_optuna.deploy.lower import Artifact, lower
from petra_optuna.deploy.parity import check_parity
from petra_optuna.deploy.probe import OnnxRuntimeModel
from petra_optuna.deploy.templates import Templates

__all__ = [
    "CONV1D",
    "CONV2D",
    "Artifact",
    "OnnxRuntimeModel",
    "Templates",
    "check_parity",
    "export_onnx",
    "lower",
]
