"""Pareto fronts of deployable PyTorch models, found by an Optuna study.

The public names are those of ``petra_optuna._public``; they are loaded on first use, so that
``import petra_optuna.samplers`` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petra_optuna._public import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the public names on first use (PEP 562)."""
    public = importlib.import_module("petra_optuna._public")
    if name in public.__all__:
        return getattr(public, name)
    raise AttributeError(f"module 'petra_optuna' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(importlib.import_module("petra_optuna._public").__all__)
