"""What runs a file: one runtime a module. Imports neither torch nor openvino until a file is opened."""

from petra_optuna.runtimes.base import Runtime, Session
from petra_optuna.runtimes.onnxruntime import OnnxRuntime
from petra_optuna.runtimes.registry import DEFAULT, RUNTIMES, runtime

__all__ = ["DEFAULT", "RUNTIMES", "OnnxRuntime", "Runtime", "Session", "runtime"]
