"""A search leaves out operations that find nothing to change in its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from support.loaders import apart
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.evaluation import Budget
from petra_optuna.operations import DropBlocks, LowRank, Prune, Train, default_space
from petra_optuna.pipeline import Kind, Operation, SearchSpace
from petra_optuna.study import StudyRecord, optimize, resume
from petra_optuna.study.applicable import applicable
from petra_optuna.tasks import Task

SPACE = SearchSpace((Prune, LowRank, DropBlocks, Train), max_length=2)


@pytest.fixture(scope="module")
def plain() -> Task:
    """Layers of which none maps a shape onto itself, so that no block can be dropped."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 3))
    loader = DataLoader(TensorDataset(torch.randn(48, 12), torch.arange(48) % 3), batch_size=16)
    return Task.from_loaders(model, loader, apart(loader), metric="accuracy", name="plain")


def test_what_has_nothing_to_change_is_left_out_and_named(
    plain: Task, caplog: pytest.LogCaptureFixture
) -> None:
    assert applicable(SPACE, plain).body == (Prune, LowRank, Train)
    (line,) = caplog.messages
    assert line.startswith("drop_blocks is left out of the search: the model has no residual block")


def test_a_model_with_blocks_keeps_all(tiny_task: Task, caplog: pytest.LogCaptureFixture) -> None:
    assert applicable(default_space(), tiny_task) == default_space()
    assert not caplog.messages


def test_operations_of_the_users_are_not_tried(plain: Task) -> None:
    @dataclasses.dataclass(frozen=True)
    class Own(Operation):
        name: ClassVar[str] = "own"
        code: ClassVar[str] = "Own"
        kind: ClassVar[Kind] = "structure"

        def apply(self, model: object, context: object) -> None:  # type: ignore[override]
            raise AssertionError

    space = SearchSpace((Own, Train))
    assert applicable(space, plain) == space


@pytest.mark.usefixtures("measured_shortly")
def test_no_trial_of_a_study_has_it_and_the_study_goes_on_with_the_same_space(
    plain: Task, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optimize(plain, trials=1, storage=url, space=SPACE, budget=Budget(epochs=1))
    assert StudyRecord(study).specification.space["body"] == ["prune", "low_rank", "train"]
    assert len(resume(plain, storage=url, space=SPACE, trials=1).trials) >= 1
