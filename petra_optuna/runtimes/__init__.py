"""Runtimes that run a file, one a module. Neither torch nor openvino is imported until a file is opened."""

from petra_optuna.runtimes.base import ARITHMETIC, Runtime, Session, WeightedKernels
from petra_optuna.runtimes.onnx_file import read_onnx
from petra_optuna.runtimes.onnxruntime import OnnxRuntime
from petra_optuna.runtimes.registry import DEFAULT, RUNTIMES, check_name, runtime

__all__ = [
    "ARITHMETIC",
    "DEFAULT",
    "RUNTIMES",
    "OnnxRuntime",
    "Runtime",
    "Session",
    "WeightedKernels",
    "check_name",
    "read_onnx",
    "runtime",
]
