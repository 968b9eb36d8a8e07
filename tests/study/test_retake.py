"""What a busy machine left uncertain is measured again once it is quiet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from petra_optuna.evaluation import Evaluator
from petra_optuna.measurement import Baseline, FileMeasurement, Measurement, ShapeMeasurement
from petra_optuna.noise import Reading
from petra_optuna.pipeline import Pipeline
from petra_optuna.samplers import SHAPE, MeasuredValues, ShapeReadings
from petra_optuna.study import retake
from petra_optuna.study.record import StudyRecord
from petra_optuna.study.retake import QUIET_CORES, Retake
from petra_optuna.study.trial_record import EVALUATION

BASELINE = Baseline(100.0, {1: 10.0})


@dataclasses.dataclass
class Quiet:
    """Measures with a narrow interval, and counts."""

    baseline: Baseline = BASELINE
    calls: int = 0

    def measure(self, file: Path) -> ShapeMeasurement:
        self.calls += 1
        one = Measurement(0.5, 0.499, 0.501, 6, 9, 1, 1, 50.0, 100.0, 0.0, 50.0, 100.0)
        return ShapeMeasurement("a", {"new": FileMeasurement(one, (one,))}, 1, self.baseline)


@pytest.fixture
def study() -> optuna.Study:
    made = optuna.create_study(directions=["maximize", "minimize"])
    made.set_metric_names(["accuracy", "latency_ms"])
    # A wide shape, a narrow one, and one that is wide although nothing else ran.
    for number, (shape, error, busy) in enumerate([("a", 0.1, 1.5), ("b", 0.001, 1.5), ("c", 0.1, 0.0)]):
        read = ShapeReadings(shape, {f"r{number}": {"latency_ms": Reading(60.0, error)}})
        one = {"batch": 1, "foreign_cores": busy, "runtime": None}
        record = {"measurements": {"latency": one, "throughput": [one]}, "pipeline": Pipeline().to_dict()}
        made.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                values=(0.9, 60.0),
                user_attrs={SHAPE: read.to_dict(), EVALUATION: record},
            )
        )
    return made


def _retake(
    study: optuna.Study, measurer: Quiet, folder: Path, busy: float, monkeypatch: pytest.MonkeyPatch
) -> Retake:
    record = {"artifact": {"id": "x"}}
    monkeypatch.setattr(StudyRecord, "standing", SimpleNamespace(front=(), measured=None))
    monkeypatch.setattr(StudyRecord, "evaluation", lambda self, number: record)
    monkeypatch.setattr(StudyRecord, "fetch", lambda self, artifact, path: path.write_bytes(b"file"))
    monkeypatch.setattr(retake, "_foreign_cores", lambda: busy)
    evaluator: Any = SimpleNamespace(folder=folder, measurer=measurer)
    return Retake(cast("Evaluator", evaluator), study)


def test_a_wide_shape_is_measured_again_once_the_machine_is_quiet(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = Quiet()
    again = _retake(study, measurer, tmp_path, 0.0, monkeypatch)
    for trial in study.trials:
        again(study, trial)
    assert measurer.calls == 1
    measured = MeasuredValues.of_study(study)
    assert measured.values(study.trials[0])[1] == pytest.approx(50.0, rel=0.02)
    assert measured.known(study.trials[0])[1].uncertainty < 0.05
    assert measured.values(study.trials[1])[1] == 60.0
    assert list(tmp_path.iterdir()) == []


def test_on_a_busy_machine_it_waits(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = Quiet()
    busy = _retake(study, measurer, tmp_path, 2 * QUIET_CORES, monkeypatch)
    for trial in study.trials:
        busy(study, trial)
    assert measurer.calls == 0
    monkeypatch.setattr(retake, "_foreign_cores", lambda: 0.0)
    busy(study, study.trials[1])
    assert measurer.calls == 1
