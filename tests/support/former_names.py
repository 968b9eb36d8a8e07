"""Parameters as the release before the fields were renamed stored them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petra_optuna.pipeline import SearchSpace


def former_params(params: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Parameters of a space under their former names, those without one as they are."""
    first = {(owner, name): former for (owner, former), name in space.former_names.items()}
    renamed = {}
    for name, value in params.items():
        prefix, _, field = name.rpartition(".")
        former = first.get((prefix.rpartition(".")[2], field))
        renamed[f"{prefix}.{former}" if former else name] = value
    return renamed
