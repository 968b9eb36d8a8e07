"""The best trial of a tuning study: its model's file, its training, and how to serve it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.database import artifacts_folder
from petra_optuna.edgetune.record import TunedRecord, record_of
from petra_optuna.edgetune.specification import TuningSpecification, specification_of
from petra_optuna.errors import StudyError
from petra_optuna.evolution import is_feasible
from petra_optuna.inference import Recommendation
from petra_optuna.study import fetch_artifact, why_no_file


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """What a tuning study recommends: a model, its training and its serving.

    Attributes:
        study: Name of the study.
        trial: Number of the best trial.
        value: Its objective.
        model: Parameters of the model by name.
        training: Parameters of training by name.
        record: What is known of the trial.
        specification: Specification of the study.
    """

    study: str
    trial: int
    value: float
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    record: TunedRecord
    specification: TuningSpecification

    @property
    def recommendation(self) -> Recommendation | None:
        """How to serve the model; None for a study without an inference objective."""
        return self.record.recommendation

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        last = self.record.rungs[-1]
        return {
            "study": self.study,
            "trial": self.trial,
            "objective": self.specification.objective,
            "value": self.value,
            "limits": [str(limit) for limit in self.specification.limits],
            "model": dict(self.model),
            "training": {
                **self.training,
                "epochs": last.epochs,
                "train_s": last.train_s,
                "train_j": self.record.train_j,
                "energy_source": self.record.energy_source,
            },
            "quality": self.record.quality,
            "size_bytes": self.record.size_bytes,
            "inference": self.recommendation and self.recommendation.to_dict(),
        }


def result_of(study: optuna.Study, number: int | None = None) -> TuningResult:
    """The best trial of a tuning study, or the one of that number.

    Raises:
        StudyError: When it is no tuning study, or the trial has no file.

    Example:
        >>> sorted(result_of(tuned).training)
        ['batch_size', 'learning_rate']
    """
    specification = specification_of(study)
    trial = _best(study) if number is None else _numbered(study, number)
    record = record_of(trial)
    if record is None or record.artifact_id is None or trial.value is None:
        raise StudyError(
            f"trial {trial.number} of study {study.study_name!r} has no file: it did not complete"
        )
    training = {name: value for name, value in trial.params.items() if name in _TRAINING}
    model = {name: value for name, value in trial.params.items() if name not in training}
    return TuningResult(study.study_name, trial.number, trial.value, model, training, record, specification)


def fetch_file(result: TuningResult, url: str, path: Path) -> None:
    """Copy the model's file out of the artifact store.

    Args:
        result: The trial.
        url: URL of the study's database.
        path: Where the file goes.

    Raises:
        StudyError: When it is not there.
    """
    assert result.record.artifact_id is not None
    fetch_artifact(artifacts_folder(url), result.record.artifact_id, path)


_TRAINING = ("batch_size", "learning_rate", "train_threads")


def _best(study: optuna.Study) -> FrozenTrial:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        trials = study.get_trials(deepcopy=False)
        last = f" (trial {trials[-1].number}: {why_no_file(trials[-1])})" if trials else ""
        raise StudyError(f"study {study.study_name!r} has no completed trial{last}; give it more trials")
    if not any(is_feasible(trial.constraints) for trial in complete):
        limits = ", ".join(map(str, specification_of(study).limits))
        raise StudyError(
            f"no completed trial of study {study.study_name!r} is within {limits}; give it more trials"
        )
    return study.best_trial


def _numbered(study: optuna.Study, number: int) -> FrozenTrial:
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise StudyError(f"study {study.study_name!r} has no trial {number}; it has {len(trials)} trials")
    return trials[number]
