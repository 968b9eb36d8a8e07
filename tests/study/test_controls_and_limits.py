"""What a study is made of, with a measurer that counts instead of timing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget, Limits
from petra_optuna.operations import Half, Prune, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results import as_json, confirm, front, limits_line, publish
from petra_optuna.study import StudyRecord, controls, optimize, trial_record
from petra_optuna.study import record as attributes
from petra_optuna.tasks import Task


def test_controls_outside_the_space_are_left_out() -> None:
    space = SearchSpace((Train, Prune), (Half,), max_length=1)
    assert [pipeline.notation for pipeline in controls(space, Budget(4))] == ["original", "Tr", "FP16"]
    trained = controls(space, Budget(4))[1].nodes[0]
    assert trained == Train(epochs=4)


def _regression() -> Task:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2048, 6, generator=generator)
    data = TensorDataset(inputs, inputs @ torch.linspace(0.0, 1.0, 6))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    loader = DataLoader(data, batch_size=32)
    return Task.from_loaders(model, loader, apart(loader), metric="rmse", name="line")


def test_a_minimised_metric_has_the_lower_value_in_front(tmp_path: Path) -> None:
    """The untrained original is far off; training on must dominate it, not the other way round."""
    space = SearchSpace((Train,), (), max_length=1)
    url = f"sqlite:///{tmp_path}/study.db"
    study = optimize(
        _regression(), trials=2, storage=url, space=space, budget=Budget(8), cache=tmp_path / "cache"
    )
    assert study.directions[0].name == "MINIMIZE"
    assert StudyRecord(study).specification.region == 0.05
    errors = [StudyRecord(study).evaluation(number)["values"]["rmse"] for number in (0, 1)]
    assert errors[1] < 0.8 * errors[0]
    assert front(study).rows[0].trial == 1
    assert front(study).rows[0].change_percent["rmse"] < -20


def test_what_loses_too_much_is_seen_and_not_on_the_front(tiny_task: Task, tmp_path: Path) -> None:
    space = SearchSpace((Prune,), (Half,), max_length=1)
    study = optimize(
        tiny_task,
        trials=4,
        storage=f"sqlite:///{tmp_path}/study.db",
        space=space,
        limits=Limits(quality_drop=0.02),
        cache=tmp_path / "cache",
    )
    original = study.user_attrs[attributes.BASELINE]["values"]["accuracy"]
    lost = {trial.number: original - trial.values[0] for trial in study.trials}
    beyond = [number for number, drop in lost.items() if drop > 0.02 + 1e-9]
    assert 0 < len(beyond) < 4  # the original and FP16 lose nothing, pruning without training much
    for trial in study.trials:
        assert trial.constraints["quality_drop"] == pytest.approx(lost[trial.number] - 0.02, abs=1e-8)
    found = front(study)
    assert not {row.trial for row in found.rows} & set(beyond)
    nearest = min(beyond, key=lost.__getitem__)
    assert dataclasses.asdict(found.violations["quality_drop"]) == {
        "trials": len(beyond),
        "stopped": 0,
        "nearest": nearest,
        "excess": pytest.approx(lost[nearest] - 0.02),
    }
    line = limits_line(found)
    assert line is not None
    assert line.startswith(f"violating limits: quality_drop {len(beyond)} trials, ")
    assert json.loads(as_json(found))["violations_by_limit"]["quality_drop"]["trials"] == len(beyond)
    publish(study)
    assert line in str(study._storage.get_study_system_attrs(study._study_id))


def test_a_study_with_nothing_within_its_limits_says_so(tiny_task: Task, tmp_path: Path) -> None:
    space = SearchSpace((Prune,), (Half,), max_length=1)
    study = optimize(
        tiny_task,
        trials=2,
        storage=f"sqlite:///{tmp_path}/study.db",
        space=space,
        limits=Limits(size_bytes=10),
        cache=tmp_path / "cache",
    )
    found = front(study)
    assert found.rows == ()
    assert (found.violations["size_bytes"].trials, found.violations["size_bytes"].stopped) == (0, 2)
    with pytest.raises(UserError, match="is empty; no trial is within the limits: size_bytes 0 trials and 2"):
        confirm(study, tiny_task)


def test_a_study_without_limits_has_nothing_beyond_them(tiny_task: Task, tmp_path: Path) -> None:
    space = SearchSpace((Prune,), (Half,), max_length=1)
    url = f"sqlite:///{tmp_path}/study.db"
    study = optimize(tiny_task, trials=1, storage=url, space=space, cache=tmp_path / "cache")
    assert front(study).violations == {}
    assert limits_line(front(study)) is None


def _poisoned(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets) * float("nan")


def test_a_loss_that_becomes_nan_is_a_row_with_its_reason(tiny_task: Task, tmp_path: Path) -> None:
    task = dataclasses.replace(tiny_task, loss=_poisoned, fingerprint="")
    space = SearchSpace((Train,), (Half,), max_length=1)
    url = f"sqlite:///{tmp_path}/study.db"
    study = optimize(task, trials=3, storage=url, space=space, budget=Budget(1), cache=tmp_path / "cache")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "TrainingDiverged" in study.trials[1].user_attrs[trial_record.FAILURE]


def test_another_loss_is_another_task(tiny_task: Task) -> None:
    """Or a cache would hand out models trained with the loss of before."""
    other = dataclasses.replace(tiny_task, loss=_poisoned, fingerprint="")
    same = dataclasses.replace(tiny_task, fingerprint="")
    assert same.fingerprint == tiny_task.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"sampler": "a sampler"}, {"space": SearchSpace((type("Own", (Prune,), {"name": "own"}),), ())}],
    ids=["sampler", "space"],
)
def test_workers_that_cannot_build_what_is_given_are_refused_at_once(
    tiny_task: Task, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="other processes cannot build"):
        optimize(tiny_task, trials=9, workers=2, storage=f"sqlite:///{tmp_path}/study.db", **change)
    assert not (tmp_path / "study.db").exists()
