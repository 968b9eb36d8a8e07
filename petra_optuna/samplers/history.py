"""What a plan may depend on: the trials so far, in an order that no clock decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.errors import PipelineError
from petra_optuna.evolution import Bounds, Direction, dominates, entered_front, minimised
from petra_optuna.evolution.front import Array
from petra_optuna.pipeline import Pipeline, SearchSpace, decode
from petra_optuna.samplers.records import FIXED, is_external, plan_indices, plan_of, superseded

FIRST_VALUES = 10
"""Complete trials from which bounds are derived in a study that has none."""

START_DEPTH = 2
"""Longest body that is planned at first: short pipelines are cheap and show what each node is worth."""


@dataclasses.dataclass(frozen=True)
class History:
    """The trials that count, superseded ones excluded, in order of their plan index.

    Attributes:
        finished: Complete, failed and pruned trials.
        pending: Running and waiting trials.
        complete: Those of ``finished`` that have values; the arrays have one row for each.
        points: Values to minimise, shape (n, m).
        units: The same in the unit coordinates of the study's bounds.
        violations: Sum of constraint violations, shape (n,).
        beyond: How far each lies outside the box in which volume counts, shape (n,), summed over the
            objectives in unit coordinates; 0 in a study without frozen bounds.
        entered: Which of them entered the front as it stood, shape (n,).
    """

    finished: tuple[FrozenTrial, ...]
    pending: tuple[FrozenTrial, ...]
    complete: tuple[FrozenTrial, ...]
    points: Array
    units: Array
    violations: Array
    beyond: Array
    entered: npt.NDArray[np.bool_]

    @classmethod
    def read(
        cls,
        trials: Sequence[FrozenTrial],
        directions: Sequence[Direction],
        bounds: Bounds | None,
        planned: int,
    ) -> History:
        """Read a study's trials.

        Args:
            trials: All of them, by number.
            directions: Of the study.
            bounds: Frozen in the study; derived from its first complete trials when None.
            planned: Number of the trial that is being planned, which does not count.
        """
        indices, dropped = plan_indices(trials), superseded(trials)
        counted = sorted(
            (trial for trial in trials if trial.number != planned and trial.number not in dropped),
            key=lambda trial: (indices[trial.number], trial.number),
        )
        finished = tuple(trial for trial in counted if trial.state.is_finished())
        complete = tuple(trial for trial in finished if trial.state == TrialState.COMPLETE)
        values = np.array([trial.values for trial in complete]).reshape(-1, len(directions))
        frozen = bounds is not None
        bounds = bounds or Bounds.from_values(values[:FIRST_VALUES], directions)
        points, units = minimised(values, directions), bounds.unit(values, directions)
        violations = np.array([_violation(trial) for trial in complete], dtype=float)
        return cls(
            finished=finished,
            pending=tuple(trial for trial in counted if not trial.state.is_finished()),
            complete=complete,
            points=points,
            units=units,
            violations=violations,
            beyond=np.clip(units - 1, 0, None).sum(axis=1) if frozen else np.zeros(len(complete)),
            entered=entered_front(points, units, violations <= 0),
        )

    def credits(self) -> tuple[tuple[str, float], ...]:
        """(operator, credit) of every planned mutation, from old to new.

        1 where the child entered the front as it stood with positive hypervolume gain, 0.5 where it
        dominates its parent, 0 otherwise and for failed and pruned trials.
        """
        rows = {trial.number: row for row, trial in enumerate(self.complete)}
        return tuple(self._credits(rows))

    def _credits(self, rows: dict[int, int]) -> Iterator[tuple[str, float]]:
        for trial in self.finished:
            plan = plan_of(trial)
            if plan is None or plan.operator is None or is_external(trial):
                continue
            row, parent = rows.get(trial.number), rows.get(-1 if plan.parent is None else plan.parent)
            if row is None or self.violations[row] > 0:
                yield plan.operator, 0.0
            elif self.entered[row]:
                yield plan.operator, 1.0
            else:
                better = parent is not None and dominates(self.points[row], self.points[parent])
                yield plan.operator, 0.5 if better else 0.0

    def depth(self, limit: int, patience: int) -> int:
        """Longest body to plan: one more after every ``patience`` trials of which none entered the front."""
        entered = {trial.number for trial, new in zip(self.complete, self.entered, strict=True) if new}
        depth, stagnant = min(START_DEPTH, limit), 0
        for trial in self.finished:
            stagnant = 0 if trial.number in entered else stagnant + 1
            if stagnant == patience:
                depth, stagnant = depth + 1, 0
            if depth >= limit:
                return limit
        return depth

    def hashes(self, space: SearchSpace) -> frozenset[str]:
        """Canonical hashes of all pipelines that were or are being run."""
        found = (_hash(trial, space) for trial in (*self.finished, *self.pending))
        return frozenset(text for text in found if text is not None)


def pipeline_of(trial: FrozenTrial, space: SearchSpace) -> Pipeline | None:
    """The trial's pipeline; None where its parameters are incomplete or come from another space."""
    params = trial.params if trial.state.is_finished() else trial.system_attrs.get(FIXED, {})
    try:
        return decode(params, space)
    except PipelineError:
        return None


def _hash(trial: FrozenTrial, space: SearchSpace) -> str | None:
    plan = plan_of(trial)
    if plan is not None:
        return plan.hash
    pipeline = pipeline_of(trial, space)
    return None if pipeline is None else pipeline.hash


def _violation(trial: FrozenTrial) -> float:
    return sum(max(0.0, excess) for excess in trial.constraints.values())
