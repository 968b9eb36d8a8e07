"""The runtimes by name."""

from __future__ import annotations

import importlib.util

from petra_optuna.errors import UserError
from petra_optuna.runtimes.base import Runtime
from petra_optuna.runtimes.onnxruntime import OnnxRuntime
from petra_optuna.runtimes.openvino import OpenVino

RUNTIMES: tuple[Runtime, ...] = (OnnxRuntime(), OpenVino())
DEFAULT = OnnxRuntime.name


def runtime(name: str = DEFAULT) -> Runtime:
    """The runtime of that name.

    Raises:
        UserError: When there is none, or its package is not installed.
    """
    for known in RUNTIMES:
        if known.name != name:
            continue
        if importlib.util.find_spec(known.package) is None:
            raise UserError(f"runtime {name!r} is not installed; pip install petra-optuna[{known.extra}]")
        return known
    names = ", ".join(known.name for known in RUNTIMES)
    raise UserError(f"unknown runtime {name!r}; there are {names}")
