"""Reading the front of a study: from trials to rows that name their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.evaluation import TrainingLedger
from petra_optuna.evolution import hypervolume
from petra_optuna.samplers import MeasuredValues, directions_of
from petra_optuna.study import StudyRecord, TrialRecord


@dataclasses.dataclass(frozen=True)
class Row:
    """One pipeline of a front.

    Attributes:
        trial: Trial number.
        pipeline: Description in the paper's notation, with the fields that differ from their defaults, and
            where a rung ended the training.
        values: Values by name, from all measurements of the file's shape.
        change_percent: Change of each value against the baseline's, in percent of it; None where that is 0.
        intervals: 95 % interval of each value that was measured with an error, by name.
        ties: Trials that this one stands for, because what was measured does not tell that they are better.
        off_front: Why the row is not on the front; None for one that is.
    """

    trial: int
    pipeline: str
    values: Mapping[str, float]
    change_percent: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    ties: tuple[int, ...] = ()
    off_front: str | None = None


@dataclasses.dataclass(frozen=True)
class Region:
    """The region of interest: quality that is not much worse than the baseline's.

    Attributes:
        limit: The worst quality inside.
        share: How much worse than the baseline's that is, as a share of it.
        outside: Number of trials within the limits that lie outside.
    """

    limit: float
    share: float
    outside: int


@dataclasses.dataclass(frozen=True)
class LimitViolations:
    """The trials that break a hard limit, which keeps them off the front.

    Attributes:
        trials: Number of trials that finished with a file that violates the limit.
        stopped: Number of other trials that the preview stopped before training: they had to break it.
        nearest: Number of the trial that breaks it by least.
        excess: How far the nearest trial is over the limit, in the limit's unit.
    """

    trials: int
    stopped: int
    nearest: int
    excess: float


@dataclasses.dataclass(frozen=True)
class StudyFront:
    """The non-dominated trials of a study, best quality first.

    Attributes:
        study: Study name.
        directions: ``maximize`` or ``minimize`` by value name, in the order of ``trial.values``.
        baseline: Values of the baseline by the same names.
        rows: The front.
        violations: Trials that violate each hard limit, by the limit's name; a trial may violate several.
        ledger: The training ledgers of all trials, summed.
        region: Region of interest, in which the rows lie; None where the whole range of quality counts.
        off_front: Trials that a row stands for, and those outside the region that no other one dominates.
    """

    study: str
    directions: Mapping[str, str]
    baseline: Mapping[str, float]
    rows: tuple[Row, ...]
    violations: Mapping[str, LimitViolations] = dataclasses.field(default_factory=dict)
    ledger: TrainingLedger = dataclasses.field(default_factory=TrainingLedger)
    region: Region | None = None
    off_front: tuple[Row, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, as the command ``front`` prints it."""
        violations = {name: dataclasses.asdict(broken) for name, broken in self.violations.items()}
        return {
            "study": self.study,
            "directions": dict(self.directions),
            "baseline": dict(self.baseline),
            "front": [dataclasses.asdict(row) for row in self.rows],
            "off_front": [dataclasses.asdict(row) for row in self.off_front],
            "region": dataclasses.asdict(self.region) if self.region else None,
            "violations_by_limit": violations,
            "repairs": {"tried": self.ledger.repairs, "within": self.ledger.repairs_within},
        }


def change_percent(value: float, baseline: float) -> float | None:
    """Change against the baseline's value in percent of it; None where that is 0."""
    return 100 * (value - baseline) / abs(baseline) if baseline else None


def front(study: optuna.Study) -> StudyFront:
    """The front of a study made by petra-optuna.

    Trials that violate a hard limit or lie outside the region of interest are not on it. Of trials that tie,
    because their intervals overlap, one row stands for all.

    Raises:
        StudyError: When the study was not made by petra-optuna.

    Example:
        >>> pareto = front(study)
        >>> min(row.values["size_bytes"] for row in pareto.rows) < pareto.baseline["size_bytes"]
        True
    """
    record = StudyRecord(study)
    specification = record.specification
    names = [name for name, _ in specification.objectives]
    values = record.baseline_values
    baseline = {name: values[name] for name in names}
    standing, limit = record.standing, record.region_limit
    read = _RowReader(tuple(names), baseline, standing.measured)
    rows = [read.row(trial, standing.tied[trial.number]) for trial in standing.front]
    off_front = [
        *(
            read.row(other, off_front=f"tie with trial {number}")
            for number, others in standing.tied.items()
            for other in others
        ),
        *(read.row(trial, off_front="below the region") for trial in standing.below),
    ]
    sign = -1.0 if specification.direction == "maximize" else 1.0
    for several in (rows, off_front):
        several.sort(key=lambda row: (sign * row.values[names[0]], row.values[names[-1]]))  # size by default
    return StudyFront(
        study.study_name,
        dict(specification.objectives),
        baseline,
        tuple(rows),
        violations_by_limit(study),
        record.ledger(),
        None if limit is None else Region(limit, specification.region, standing.outside),
        tuple(off_front),
    )


def violations_by_limit(study: optuna.Study) -> dict[str, LimitViolations]:
    """The trials that violate each hard limit, by its name; limits that no trial breaks are left out."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    broken: dict[str, list[tuple[float, FrozenTrial]]] = {}
    for trial in ended:
        for name, excess in trial.constraints.items():
            if excess > 0:
                broken.setdefault(name, []).append((excess, trial))
    return {name: _violations(trials) for name, trials in broken.items()}


def _violations(trials: list[tuple[float, FrozenTrial]]) -> LimitViolations:
    excess, nearest = min(trials, key=lambda pair: pair[0])
    finished = sum(trial.state == TrialState.COMPLETE for _, trial in trials)
    return LimitViolations(finished, len(trials) - finished, nearest.number, excess)


def study_hypervolume(study: optuna.Study) -> float:
    """Hypervolume of the feasible trials under the bounds frozen in the study; higher is better."""
    record = StudyRecord(study)
    measured = record.measured_values
    values = [measured.values(trial) for trial in record.feasible_trials()]
    return hypervolume(values, directions_of(study), record.bounds)


@dataclasses.dataclass(frozen=True)
class _RowReader:
    """Reads trials as rows of one study.

    Attributes:
        names: Names of the values.
        baseline: Values of the baseline by name.
        measured: Values of the trials.
    """

    names: tuple[str, ...]
    baseline: Mapping[str, float]
    measured: MeasuredValues

    def row(self, trial: FrozenTrial, ties: Sequence[FrozenTrial] = (), off_front: str | None = None) -> Row:
        values = dict(zip(self.names, self.measured.values(trial), strict=True))
        evaluation = TrialRecord(trial).evaluation
        assert evaluation is not None, f"trial {trial.number} is complete without an evaluation"
        return Row(
            trial=trial.number,
            pipeline=pipeline_text(evaluation, "description"),
            values=values,
            change_percent={name: change_percent(values[name], self.baseline[name]) for name in self.names},
            intervals={
                self.names[index]: (one.low, one.high) for index, one in self.measured.known(trial).items()
            },
            ties=tuple(other.number for other in ties),
            off_front=off_front,
        )


def pipeline_text(evaluation: Mapping[str, Any], form: Literal["notation", "description"]) -> str:
    """A trial's pipeline in words, and where a rung ended its training.

    Args:
        evaluation: Record of the trial's evaluation (``StudyRecord.evaluation``).
        form: Whether to tell the fields that differ from their defaults.
    """
    stopped = evaluation["stopped"]
    text = str(evaluation[form])
    return f"{text} [stopped after {stopped['epochs']:.3g} epochs]" if stopped else text
