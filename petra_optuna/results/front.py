"""Reading the front of a study: from trials to rows that name their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.errors import StudyError
from petra_optuna.evolution import Bounds, hypervolume, non_dominated
from petra_optuna.results.savings import study_ledger
from petra_optuna.samplers import BOUNDS, directions_of
from petra_optuna.study import record as attributes
from petra_optuna.study.lookup import specification_of
from petra_optuna.study.record import feasible_trials


@dataclasses.dataclass(frozen=True)
class Row:
    """One pipeline of a front.

    Attributes:
        trial: Trial number.
        pipeline: Its description in the paper's notation, with the fields that differ from defaults, and
            where a rung ended its training.
        values: FileMeasurement values by name.
        change_percent: Each value against the original's, in percent of it; None where that is 0.
    """

    trial: int
    pipeline: str
    values: Mapping[str, float]
    change_percent: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class LimitViolations:
    """The trials that a hard limit keeps off the front.

    Attributes:
        trials: How many finished with a file that is beyond it.
        stopped: How many more the preview stopped before training, because they had to be.
        nearest: Number of the trial that is beyond it by least.
        excess: By how much that one is, in the limit's unit.
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
        original: The original model's values of the same.
        rows: The front.
        beyond: By name of the limit, the trials that are beyond it; a trial may be beyond several.
        repairs: How many files beyond the limit on quality a repair was tried for.
        repairs_within: How many of these it brought within the limit.
    """

    study: str
    directions: Mapping[str, str]
    original: Mapping[str, float]
    rows: tuple[Row, ...]
    beyond: Mapping[str, LimitViolations] = dataclasses.field(default_factory=dict)
    repairs: int = 0
    repairs_within: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, as ``petra front --format json`` prints it."""
        return {
            "study": self.study,
            "directions": dict(self.directions),
            "original": dict(self.original),
            "front": [dataclasses.asdict(row) for row in self.rows],
            "violations_by_limit": {name: dataclasses.asdict(found) for name, found in self.beyond.items()},
            "repairs": {"tried": self.repairs, "within": self.repairs_within},
        }


def change_percent(value: float, original: float) -> float | None:
    """Change against the original's value in percent of it; None where that is 0."""
    return 100 * (value - original) / abs(original) if original else None


def front(study: optuna.Study) -> StudyFront:
    """The front of a study made by petra. Trials beyond a hard limit are not on it.

    Raises:
        StudyError: When the study was not made by petra.
    """
    specification = specification_of(study)
    names = [name for name, _ in specification.objectives]
    values = study.user_attrs[attributes.BASELINE]["values"]
    original = {name: values[name] for name in names}
    trials = feasible_trials(study)
    best = non_dominated([trial.values for trial in trials], directions_of(study))
    rows = [_row(trials[index], names, original) for index in best]
    sign = -1.0 if specification.direction == "maximize" else 1.0
    rows.sort(key=lambda row: (sign * row.values[names[0]], row.values[names[-1]]))  # size by default
    directions = dict(specification.objectives)
    counted = study_ledger(study)
    return StudyFront(
        study.study_name,
        directions,
        original,
        tuple(rows),
        violations_by_limit(study),
        counted.repairs,
        counted.repairs_within,
    )


def violations_by_limit(study: optuna.Study) -> dict[str, LimitViolations]:
    """The trials beyond each hard limit, by the limit's name; limits that every trial keeps are left out."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    found: dict[str, list[tuple[float, FrozenTrial]]] = {}
    for trial in ended:
        for name, excess in trial.constraints.items():
            if excess > 0:
                found.setdefault(name, []).append((excess, trial))
    return {name: _beyond(misses) for name, misses in found.items()}


def _beyond(misses: list[tuple[float, FrozenTrial]]) -> LimitViolations:
    excess, nearest = min(misses, key=lambda miss: miss[0])
    finished = sum(trial.state == TrialState.COMPLETE for _, trial in misses)
    return LimitViolations(finished, len(misses) - finished, nearest.number, excess)


def study_hypervolume(study: optuna.Study) -> float:
    """Hypervolume of the feasible trials under the bounds frozen in the study; higher is better."""
    bounds = Bounds.from_dict(study.user_attrs[BOUNDS])
    return hypervolume([trial.values for trial in feasible_trials(study)], directions_of(study), bounds)


def evaluation_of(study: optuna.Study, number: int) -> dict[str, Any]:
    """What is stored of a finished trial.

    Raises:
        StudyError: When the trial does not exist, or has no file; the text says why.
    """
    trials = study.get_trials(deepcopy=False)
    trial = next((trial for trial in trials if trial.number == number), None)
    if trial is None:
        last = f"0 to {len(trials) - 1}" if trials else "none"
        raise StudyError(f"study {study.study_name!r} has no trial {number}; its trials are {last}")
    record: dict[str, Any] | None = trial.user_attrs.get(attributes.EVALUATION)
    if trial.state != TrialState.COMPLETE or record is None:
        reason = trial.user_attrs.get(attributes.FAILURE, "it has not finished")
        raise StudyError(f"trial {number} is {trial.state.name} and has no file: {reason}")
    return record


def _row(trial: FrozenTrial, names: list[str], original: Mapping[str, float]) -> Row:
    values = dict(zip(names, trial.values, strict=True))
    change = {name: change_percent(values[name], original[name]) for name in names}
    record = trial.user_attrs[attributes.EVALUATION]
    return Row(trial.number, pipeline_text(record, "description"), values, change)


def pipeline_text(record: Mapping[str, Any], form: Literal["notation", "description"]) -> str:
    """A trial's pipeline in words, and where a rung ended its training."""
    stopped = record.get("stopped")
    return f"{record[form]} [stopped after {stopped['epochs']:.3g} epochs]" if stopped else str(record[form])
