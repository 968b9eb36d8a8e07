"""A specification of a study that nobody runs."""

from __future__ import annotations

from typing import Any

from petra_optuna.evaluation import Budget, Limits
from petra_optuna.measurement import DeviceProfile
from petra_optuna.operations import Half, Prune, QuantizeStatic, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.study import Specification, TaskSource

SPACE = SearchSpace((Prune, Train), (Half, QuantizeStatic), max_length=2)


def specification_with(space: SearchSpace = SPACE, **changes: Any) -> Specification:
    """A specification of another task, with changes."""
    settings: dict[str, Any] = {
        "task": TaskSource("of another task"),
        "fingerprint": "another",
        "metric": "accuracy",
        "direction": "maximize",
        "space": space.to_dict(),
        "budget": Budget(epochs=3),
        "limits": Limits(),
        "profile": DeviceProfile(threads=3),
        "seed": 9,
        "population_size": 8,
        "sampler": "PetraSampler",
        "train_threads": 1,
        "artifacts": None,
        "cache": "cache",
    }
    return Specification(**{**settings, **changes})
