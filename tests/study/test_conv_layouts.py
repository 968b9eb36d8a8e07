"""The baseline gets the same choice of form as a candidate; a confirmation builds the form that shipped."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from support import small_task
from support.loaders import apart
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.evaluation import Budget, quality_of
from petra_optuna.measurement import Baseline, DeviceProfile, FileMeasurement, Measurement
from petra_optuna.operations import QuantizeStatic, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results import confirm, export_trial
from petra_optuna.study import StudyRecord, baseline, optimize, worker_context
from petra_optuna.study import record as attributes
from petra_optuna.study.baseline import lower_baseline
from petra_optuna.tasks import Task

BLANK = Measurement(1.0, 1.0, 1.0, 2, 1, 1, 1, 1.0, 1.0, 0.0, 1.0, 1.0)


def _rank(path: Path) -> int:
    graph = onnx.load(path).graph
    return max(len(tensor.dims) for tensor in graph.initializer)


class Fake:
    """A measuring process in which files of one form take ``factor`` as long as the baseline."""

    started: int = 0

    def __init__(self, factor: float, profile: DeviceProfile, baseline: Path, feeds: object) -> None:
        self.factor = factor
        Fake.started += 1
        assert baseline.exists()

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, path: Path) -> FileMeasurement:
        found = dataclasses.replace(BLANK, ratio=self.factor if _rank(path) == 4 else 1.0)
        return FileMeasurement(found, (found,))

    def measure_baseline(self) -> Baseline:
        return Baseline(1.0, {1: 1.0})


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def patch(factor: float) -> None:
        for module in (baseline, worker_context):
            monkeypatch.setattr(module, "MeasuringProcess", functools.partial(Fake, factor))

    return patch


@pytest.fixture(scope="module")
def series() -> Task:
    torch.manual_seed(0)
    parts = [TensorDataset(torch.randn(count, 3, 16), torch.arange(count) % 3) for count in (96, 48, 48)]
    layers = [
        nn.Conv1d(3, 16, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(16, 16, 5),
        nn.Flatten(),
        nn.Linear(192, 3),
    ]
    train, selection, test = (DataLoader(part, batch_size=32) for part in parts)
    return Task.from_loaders(nn.Sequential(*layers).eval(), train, selection, test, metric="accuracy")


@pytest.mark.parametrize(("factor", "rank"), [(0.6, 4), (1.3, 3)])
def test_the_original_takes_the_faster_form(
    series: Task, tmp_path: Path, measuring: Callable[[float], None], factor: float, rank: int
) -> None:
    measuring(factor)
    path = tmp_path / "baseline.onnx"
    taken, forms = lower_baseline(series, DeviceProfile(), path)
    assert list(tmp_path.iterdir()) == [path] == [taken.artifact.path]
    assert _rank(path) == rank
    assert taken.artifact.size_bytes == path.stat().st_size
    assert taken.quality == quality_of(path, series, series.selection)
    assert forms is not None
    assert forms.shipped == ("2d" if rank == 4 else "1d")


def test_an_original_without_series_is_not_measured_for_it(
    tmp_path: Path, measuring: Callable[[float], None]
) -> None:
    measuring(0.5)
    before = Fake.started
    data = DataLoader(small_task.data(64, 0), batch_size=32)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    task = Task.from_loaders(model, data, apart(data), metric="accuracy")
    assert lower_baseline(task, DeviceProfile(), tmp_path / "baseline.onnx")[1] is None
    assert Fake.started == before


def test_a_study_freezes_ships_tells_and_rebuilds_the_form(
    series: Task, tmp_path: Path, measuring: Callable[[float], None]
) -> None:
    measuring(0.5)
    study: Any = optimize(
        series,
        trials=1,
        storage=f"sqlite:///{tmp_path}/study.db",
        space=SearchSpace((Train,), (QuantizeStatic,), max_length=1),
        budget=Budget(1),
        cache=tmp_path / "cache",
    )
    assert study.user_attrs[attributes.BASELINE]["convolutions"]["shipped"] == "2d"
    StudyRecord(study).fetch_baseline(tmp_path / "baseline.onnx")
    assert _rank(tmp_path / "baseline.onnx") == 4
    assert StudyRecord(study).evaluation(0)["lowering"]["convolutions"] == "2d"
    export_trial(study, 0, tmp_path / "out", series)
    assert _rank(tmp_path / "out" / "model.onnx") == 4
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["convolutions"] == "2d"
    card = (tmp_path / "out" / "card.md").read_text()
    assert "run as 2d, of 1d at 1.000 ms" in card
    assert "the baseline's run as 2d" in card
    confirmed = confirm(study, series, seeds=1, bootstrap=100, rounds=1)
    original = next(member for member in confirmed.members if member.trial == 0)
    assert original.seedless
