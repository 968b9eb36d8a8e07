"""Reading the front of a study: from trials to rows that name their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.evolution import hypervolume
from petra_optuna.samplers import directions_of
from petra_optuna.study import StudyRecord, TrialRecord


@dataclasses.dataclass(frozen=True)
class Row:
    """One pipeline of a front.

    Attributes:
        trial: Trial number.
        pipeline: Description in the paper's notation, with the fields that differ from their defaults, and
            where a rung ended the training.
        values: Measured values by name.
        change_percent: Change of each value against the baseline's, in percent of it; None where that is 0.
    """

    trial: int
    pipeline: str
    values: Mapping[str, float]
    change_percent: Mapping[str, float | None]


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
        repairs: Number of files that violate the limit on quality for which a repair was tried.
        repairs_within: Number of these that the repair brought within the limit.
    """

    study: str
    directions: Mapping[str, str]
    baseline: Mapping[str, float]
    rows: tuple[Row, ...]
    violations: Mapping[str, LimitViolations] = dataclasses.field(default_factory=dict)
    repairs: int = 0
    repairs_within: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, as the command ``front`` prints it."""
        violations = {name: dataclasses.asdict(broken) for name, broken in self.violations.items()}
        return {
            "study": self.study,
            "directions": dict(self.directions),
            "baseline": dict(self.baseline),
            "front": [dataclasses.asdict(row) for row in self.rows],
            "violations_by_limit": violations,
            "repairs": {"tried": self.repairs, "within": self.repairs_within},
        }


def change_percent(value: float, baseline: float) -> float | None:
    """Change against the baseline's value in percent of it; None where that is 0."""
    return 100 * (value - baseline) / abs(baseline) if baseline else None


def front(study: optuna.Study) -> StudyFront:
    """The front of a study made by petra-optuna. Trials that violate a hard limit are not on it.

    Raises:
        StudyError: When the study was not made by petra-optuna.

    Example:
        >>> pareto = front(study)
        >>> min(row.values["size_bytes"] for row in pareto.rows) < pareto.baseline["size_bytes"]
        True
    """
    record = StudyRecord(study)
    specification, ledger = record.specification, record.ledger()
    names = [name for name, _ in specification.objectives]
    values = record.baseline_values
    baseline = {name: values[name] for name in names}
    rows = [_row(trial, names, baseline) for trial in record.front_trials()]
    sign = -1.0 if specification.direction == "maximize" else 1.0
    rows.sort(key=lambda row: (sign * row.values[names[0]], row.values[names[-1]]))  # size by default
    return StudyFront(
        study.study_name,
        dict(specification.objectives),
        baseline,
        tuple(rows),
        violations_by_limit(study),
        ledger.repairs,
        ledger.repairs_within,
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
    values = [trial.values for trial in record.feasible_trials()]
    return hypervolume(values, directions_of(study), record.bounds)


def _row(trial: FrozenTrial, names: list[str], baseline: Mapping[str, float]) -> Row:
    values = dict(zip(names, trial.values, strict=True))
    change = {name: change_percent(values[name], baseline[name]) for name in names}
    evaluation = TrialRecord(trial).evaluation
    assert evaluation is not None, f"trial {trial.number} is complete without an evaluation"
    return Row(trial.number, pipeline_text(evaluation, "description"), values, change)


def pipeline_text(evaluation: Mapping[str, Any], form: Literal["notation", "description"]) -> str:
    """A trial's pipeline in words, and where a rung ended its training.

    Args:
        evaluation: Record of the trial's evaluation (``StudyRecord.evaluation``).
        form: Whether to tell the fields that differ from their defaults.
    """
    stopped = evaluation["stopped"]
    text = str(evaluation[form])
    return f"{text} [stopped after {stopped['epochs']:.3g} epochs]" if stopped else text
