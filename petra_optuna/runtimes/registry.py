"""The runtimes by name; a new one is a row of ``RUNTIMES``."""

from __future__ import annotations

import importlib.util

from petra_optuna.errors import UserError
from petra_optuna.runtimes.base import Runtime
from petra_optuna.runtimes.onnxruntime import OnnxRuntime
from petra_optuna.runtimes.openvino import OpenVino
from petra_optuna.runtimes.pytorch import PyTorch

RUNTIMES: tuple[Runtime, ...] = (OnnxRuntime(), OpenVino(), PyTorch())
DEFAULT = OnnxRuntime.name


def runtime(name: str = DEFAULT) -> Runtime:
    """The runtime of that name.

    Raises:
        UserError: When there is none, or its package is not installed.
    """
    check_name(name)
    chosen = next(row for row in RUNTIMES if row.name == name)
    if importlib.util.find_spec(chosen.package) is None:
        raise UserError(f"runtime {name!r} is not installed; pip install petra-optuna[{chosen.extra}]")
    return chosen


def check_name(name: str) -> None:
    """Check that there is a runtime of that name, installed or not.

    Raises:
        UserError: When there is none.
    """
    if all(row.name != name for row in RUNTIMES):
        names = ", ".join(row.name for row in RUNTIMES)
        raise UserError(f"unknown runtime {name!r}; there are {names}")
