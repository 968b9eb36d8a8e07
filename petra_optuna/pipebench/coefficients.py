"""The numbers of the surrogate: one table, fitted to recorded trials, and what profiles change of it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from petra_optuna.errors import UserError

Coefficients = Mapping[str, float]

FILE = "coefficients.json"
BASE = "digits"
"""The profile that was fitted: the table as it stands. The others multiply some of its entries."""

CONSTANTS = (
    "chance",
    "quality",
    "latency_ms",
    "size_bytes",
    "blocks",
    "narrowest",
    "train.divergence",
    "seconds.fixed",
)
"""Coefficients that are known or chosen, not fitted."""

REFERENCES = (
    "prune.criterion.magnitude_l2",
    "prune.scope.local",
    "low_rank.scope.local",
    "drop_blocks.criterion.taylor",
    "static.calibration.minmax",
    "seconds.criterion.magnitude_l2",
    "seconds.train",
)
"""Factors that stand at 1, so that the factors beside them have one meaning."""


def table() -> dict[str, Any]:
    """The file: ``coefficients`` by name, and ``profiles`` with factors by name."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


@functools.cache
def profile(name: str) -> Coefficients:
    """The coefficients of a network.

    Args:
        name: ``digits``, the fitted profile, or a key of ``profiles``.

    Raises:
        UserError: When there is no such profile, or it names a coefficient that does not exist.
    """
    data = table()
    base = {key: float(value) for key, value in data["coefficients"].items()}
    profiles = {BASE: {}, **data["profiles"]}
    if name not in profiles:
        raise UserError(f"unknown profile {name!r}; {FILE} has {', '.join(profiles)}")
    factors = profiles[name]
    if unknown := set(factors) - set(base):
        raise UserError(f"profile {name!r} in {FILE} changes {', '.join(sorted(unknown))}, which it lacks")
    return {key: value * factors.get(key, 1.0) for key, value in base.items()}


def fitted_names(coefficients: Coefficients) -> tuple[str, ...]:
    """Names of the coefficients that a fit may change; all of them are positive."""
    return tuple(name for name in coefficients if name not in (*CONSTANTS, *REFERENCES))


def digest(coefficients: Coefficients) -> str:
    """Short SHA-256 of the numbers, to tell results of different tables apart."""
    text = json.dumps(dict(sorted(coefficients.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
