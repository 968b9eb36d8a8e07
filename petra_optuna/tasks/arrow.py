"""Modules of pyarrow, which reads tables and comes with an extra."""

from __future__ import annotations

import importlib
from typing import Any

from petra_optuna.errors import TaskError


def arrow(module: str = "") -> Any:
    """A module of pyarrow, loaded on first use.

    Args:
        module: Name of the module inside pyarrow; the package itself when empty.

    Raises:
        TaskError: When pyarrow is not installed.
    """
    try:
        return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ModuleNotFoundError as error:
        raise TaskError(
            "tables are read by pyarrow; install it with `pip install petra-optuna[tables]`"
        ) from error
