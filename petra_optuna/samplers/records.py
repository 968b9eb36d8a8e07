"""What the sampler stores in a trial, and reading it back. All of its state is here.

A planned trial carries one system attribute, its plan. A trial that re-runs another carries a second
one that names it. Nothing else is stored: rates, depth and population follow from the trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from petra_optuna.aliases import Direction
from petra_optuna.samplers import _storage

PLAN = "petra:plan"
"""System attribute of a trial: its plan."""
RETRY = "petra:retry"
"""System attribute of a trial that re-runs another one: its number, its plan index, the count of re-runs."""
ORPHAN = "petra:orphan"
"""System attribute of a trial whose process died and that is going to be run again."""
FIXED = "fixed_params"
"""Optuna's own system attribute of enqueued trials."""

Key = tuple[int, int]
"""(plan index, trial number): the order of the trials that no clock decides."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Parameters planned for a trial, and where they come from.

    Attributes:
        index: Plan index; with the seed it determines all randomness of the plan.
        params: Parameter values by name.
        operator: Name of the mutation; None for a random pipeline, and where fixed values changed the child.
        parent: Number of the trial that was mutated; None for a random pipeline.
        hash: Canonical hash of the pipeline, or of the parameters where there is no search space.
        second: Name of the mutation that followed the first; None where one was all.
        strength: Size of a small step; None where the operator takes none.
        depth: Longest body that the sampler planned at that time; None where there is no search space.
        note: Reason why the plan is not what was wanted; None where it is.
    """

    index: int
    params: dict[str, Any]
    operator: str | None = None
    parent: int | None = None
    second: str | None = None
    strength: float | None = None
    hash: str | None = None
    depth: int | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class OperatorUse:
    """One mutation that was tried, and what it earned: an entry of the operator history.

    Attributes:
        operator: Name of the mutation.
        second: Name of the mutation that followed it; None where one was all.
        strength: Size of its small step; None where it takes none, or where the size is fixed.
        credit: Success of the child, in [0, 1]; see ``History.credited_plans``.
    """

    operator: str
    second: str | None
    strength: float | None
    credit: float


@dataclasses.dataclass(frozen=True)
class PlanRequest:
    """A trial to be planned, and the values that its plan has to keep.

    Attributes:
        seed: Seed of the sampler.
        number: Number of the trial.
        enqueued: Parameters that the user gave this trial.
        held: Parameters that hold a value in all trials now planned.
    """

    seed: int
    number: int
    enqueued: Mapping[str, Any]
    held: Mapping[str, Any]


def plan_of(trial: FrozenTrial) -> Plan | None:
    """The plan of a trial; None where the sampler had nothing to plan."""
    data = trial.system_attrs.get(PLAN)
    return None if data is None else Plan(**data)


def is_external(trial: FrozenTrial) -> bool:
    """Whether the trial was enqueued or added, in part at least: it earns no operator credit."""
    return FIXED in trial.system_attrs or PLAN not in trial.system_attrs


def was_enqueued(trial: optuna.Trial) -> bool:
    """Whether a running trial has parameters that somebody enqueued."""
    return FIXED in _storage.system_attributes(trial.study, trial)


def directions_of(study: optuna.Study) -> tuple[Direction, ...]:
    """The study's directions as words."""
    return tuple(
        "maximize" if direction == optuna.study.StudyDirection.MAXIMIZE else "minimize"
        for direction in study.directions
    )
