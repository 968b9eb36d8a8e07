"""The test split cannot be read in a search, whichever way is tried."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.loaders import apart
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from petra_optuna.errors import SealedSplitRead
from petra_optuna.evaluation import Budget, Evaluator, quality_of
from petra_optuna.measurement import Baseline, FileMeasurement, Measurement, ShapeMeasurer
from petra_optuna.nn.inputs import Inputs, to_feeds
from petra_optuna.operations import Context, Train
from petra_optuna.pipeline import Applied, Operation, Pipeline, SearchSpace
from petra_optuna.study import optimize, trial_record
from petra_optuna.tasks import Metric, Task, open_once

X = torch.eye(4).repeat(10, 1)
Y = torch.arange(4).repeat(10)


def _task(**changes: Any) -> Task:
    loader = DataLoader(TensorDataset(X, Y), batch_size=8)
    torch.manual_seed(0)
    splits = (apart(loader, 1), apart(loader, 2), loader)
    return Task.from_loaders(nn.Linear(4, 4), *splits, **{"metric": "accuracy"} | changes)


def _predict(inputs: Inputs) -> np.ndarray:
    return next(iter(to_feeds(inputs).values()))


READS: dict[str, Callable[[Any], Any]] = {
    "batches": lambda test: next(test.batches(8)),
    "fraction": lambda test: next(test.batches(8, fraction=0.2, shuffle_seed=1)),
    "evaluate": lambda test: _task().evaluate(_predict, test),
    "sample": lambda test: test.dataset[0],
    "loop": lambda test: list(test.dataset),
    "subset": lambda test: Subset(test.dataset, [3])[0],
    "loader": lambda test: next(iter(DataLoader(test.dataset, batch_size=2))),
}
WAYS: dict[str, Callable[[Task], Any]] = {
    "as it is": lambda task: task.test,
    "replaced": lambda task: dataclasses.replace(task, name="other", fingerprint="").test,
    "pickled": lambda task: pickle.loads(pickle.dumps(task.test)),
    "copied": lambda task: copy.deepcopy(task.test),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("way", WAYS)
def test_the_test_split_is_sealed_on_every_route(way: str, read: str) -> None:
    with pytest.raises(SealedSplitRead, match="only a confirmation may"):
        READS[read](WAYS[way](_task()))


def test_its_arrays_are_not_at_hand_but_its_length_is() -> None:
    test: Any = _task().test
    assert len(test) == 40
    assert not hasattr(test.dataset, "tensors")


def test_opened_it_reads_as_before_and_only_once() -> None:
    task = _task()
    assert task.test is not None
    opened = open_once(task.test)
    for index, (inputs, targets) in enumerate(opened.batches(16)):
        assert torch.equal(inputs[0], X[16 * index :][:16])  # type: ignore[index]
        assert torch.equal(targets, Y[16 * index :][:16])
    with pytest.raises(SealedSplitRead, match="read twice"):
        next(opened.batches(16))
    with pytest.raises(SealedSplitRead, match="only a confirmation may"):
        next(task.test.batches(16))


def test_a_second_start_after_half_a_reading_is_a_second_reading() -> None:
    opened = open_once(_task().test)  # type: ignore[arg-type]
    next(opened.batches(8))
    with pytest.raises(SealedSplitRead, match="sample 0 of the test split was read twice"):
        list(opened.batches(40))


def test_the_seal_does_not_change_the_fingerprint_and_the_data_does() -> None:
    base = _task()
    assert dataclasses.replace(base, fingerprint="").fingerprint == base.fingerprint
    flipped = DataLoader(TensorDataset(X.clone(), Y.flip(0)), batch_size=8)
    loader = DataLoader(TensorDataset(X, Y), batch_size=8)
    other = Task.from_loaders(base.model, apart(loader, 1), apart(loader, 2), flipped, metric="accuracy")
    assert other.fingerprint != base.fingerprint


@dataclasses.dataclass(frozen=True)
class Peek(Operation):
    """Looks at the test split, then returns its input."""

    name = "peek"
    code = "Pk"
    kind = "structure"

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        assert context.task.test is not None
        context.task.evaluate(_predict, context.task.test)
        return Applied(model, {})


class _Clock:
    def measure(self, path: Path) -> FileMeasurement:
        same = Measurement(1, 1, 1, 2, 1, 1, 1, 1, 1, 0, 1, 1)
        return FileMeasurement(same, (same,))


def _evaluator(task: Task, folder: Path) -> Evaluator:
    return Evaluator(task, ShapeMeasurer(_Clock(), Baseline(1.0, {1: 1.0})), folder, Budget(1))


def test_an_operation_that_reads_it_fails_its_trial(tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(SealedSplitRead, match="the test split was read"):
        _evaluator(tiny_task, tmp_path).evaluate(Pipeline((Peek(),)))


@pytest.mark.usefixtures("measured_shortly")
def test_a_search_goes_on_after_an_operation_that_reads_it(tiny_task: Task, tmp_path: Path) -> None:
    space = SearchSpace((Peek,), (), max_length=1)
    study = optimize(tiny_task, trials=2, storage=f"sqlite:///{tmp_path}/study.db", space=space)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL"]
    reason = study.trials[1].user_attrs[trial_record.FAILURE]
    assert reason.startswith("SealedSplitRead: the test split was read")


def test_a_metric_or_a_loss_that_reads_it_fails_the_trial(tiny_task: Task, tmp_path: Path) -> None:
    def peek(*_: Any) -> Any:
        return next(tiny_task.test.batches(8))  # type: ignore[union-attr]

    metric = Metric("sly", "maximize", peek)
    with pytest.raises(SealedSplitRead):
        _evaluator(dataclasses.replace(tiny_task, metric=metric), tmp_path).evaluate(Pipeline())
    with pytest.raises(SealedSplitRead):
        _evaluator(dataclasses.replace(tiny_task, loss=peek), tmp_path).evaluate(Pipeline((Train(epochs=1),)))


def test_quality_on_the_test_split_is_refused_to_an_evaluator(tiny_task: Task, tmp_path: Path) -> None:
    done = _evaluator(tiny_task, tmp_path).evaluate(Pipeline())
    assert tiny_task.test is not None
    with pytest.raises(SealedSplitRead):
        quality_of(done.artifact.path, tiny_task, tiny_task.test)
    assert quality_of(done.artifact.path, tiny_task, open_once(tiny_task.test)) > 0.9


def test_a_study_whose_evaluator_selects_on_the_test_split_never_starts(tiny_task: Task) -> None:
    """A task whose selection split is the sealed one cannot even be tried on a batch."""
    sly = dataclasses.replace(tiny_task, selection=tiny_task.test, fingerprint="")
    with pytest.raises(SealedSplitRead):
        sly.evaluate(_predict, sly.selection)
