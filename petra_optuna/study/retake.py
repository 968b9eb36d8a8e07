"""Measuring again, once the machine is quiet, what a busy machine has left uncertain."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.errors import MeasurementFailed, StudyError
from petra_optuna.evaluation import Evaluator
from petra_optuna.measurement import TOLERANCE, ForeignLoad
from petra_optuna.samplers import MeasuredValues, ShapeReadings
from petra_optuna.study.record import StudyRecord
from petra_optuna.study.trial_record import TrialRecord

QUIET_CORES = 0.2
"""The machine is quiet while other processes keep fewer cores busy, on average."""
_LOOK_S = 0.2


class Retake:
    """An Optuna callback that measures shapes again, one after each trial while the machine is quiet.

    They are those that a busy machine left wide: half the 95 % interval of a value is more than ``TOLERANCE``
    of it, and other processes were busy when it was measured. They are known from the trials of this process,
    and from the front as it was at the beginning.

    Args:
        evaluator: Evaluator whose measuring process and folder are used.
        study: Study that is run.
    """

    def __init__(self, evaluator: Evaluator, study: optuna.Study) -> None:
        self._evaluator = evaluator
        standing = StudyRecord(study).standing
        self._wide = [trial for trial in standing.front if _is_in_doubt(standing.measured, trial)]

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Note the trial's shape if it is wide; measure one wide shape again if the machine is quiet."""
        if trial.state == TrialState.COMPLETE and _is_in_doubt(_measured_alone(study, trial), trial):
            self._wide.append(trial)
        if self._wide and _foreign_cores() < QUIET_CORES:
            self._take(study, self._wide.pop(0))

    def _take(self, study: optuna.Study, trial: FrozenTrial) -> None:
        record = StudyRecord(study)
        path = Path(self._evaluator.folder, f"retake-{trial.number}.onnx")
        try:
            record.fetch(record.evaluation(trial.number)["artifact"]["id"], path)
            measured = self._evaluator.measurer.measure(path)
        except (MeasurementFailed, StudyError):  # the trial keeps what is known of it
            return
        finally:
            path.unlink(missing_ok=True)
        own = ShapeReadings.of_trial(trial)
        for name, one in measured.readings.items():
            if own is not None and name not in own.readings:
                values = self._evaluator.measurer.baseline.readings(one)
                record.store_reading(name, ShapeReadings(own.shape, {name: values}))


def _is_in_doubt(measured: MeasuredValues, trial: FrozenTrial) -> bool:
    """Whether a busy machine left a value of the trial wide."""
    is_wide = any(one.uncertainty > TOLERANCE for one in measured.known(trial).values())
    return is_wide and (TrialRecord(trial).foreign_cores or 0.0) > QUIET_CORES


def _measured_alone(study: optuna.Study, trial: FrozenTrial) -> MeasuredValues:
    """Values of the trial by what it read itself."""
    measured = MeasuredValues.for_study(study)
    measured.add_trials([trial])
    return measured


def _foreign_cores() -> float:
    """Mean number of cores that other processes keep busy, looked at for a moment."""
    load = ForeignLoad()
    time.sleep(_LOOK_S)
    return load.cores()
