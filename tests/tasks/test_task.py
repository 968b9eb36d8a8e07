from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from petra_optuna.errors import DataError, MeasurementFailed, TaskError
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward
from petra_optuna.nn.training import output_matching_loss, soft_label_loss
from petra_optuna.tasks import Split, Task

LABELS = torch.arange(60) % 3
ONE_HOT = torch.eye(3)[LABELS]


def _loader(count: int = 60, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(
        TensorDataset(ONE_HOT[:count].clone(), LABELS[:count].clone()), batch_size=7, shuffle=shuffle
    )


def _perfect() -> nn.Linear:
    model = nn.Linear(3, 3)
    nn.init.eye_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def _task(**changes: Any) -> Task:
    given: dict[str, Any] = {"model": _perfect(), "train": _loader(57), "selection": _loader()}
    return Task.from_loaders(**{**given, "metric": "accuracy", **changes})


def _predict(model: nn.Module) -> Any:
    def predict(inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            return forward(model, inputs).numpy()

    return predict


def test_predictions_and_labels_stay_in_step_however_the_loader_shuffles() -> None:
    task = _task(selection=_loader(shuffle=True))
    assert task.evaluate(_predict(task.model), task.selection, batch_size=7) == 1.0


def test_predictions_and_labels_stay_in_step_when_the_data_itself_comes_in_random_order() -> None:
    class Restless(Dataset[Any]):
        """Returns a random sample whatever index is asked for."""

        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            chosen = int(torch.randint(60, ()))
            return ONE_HOT[chosen], LABELS[chosen]

    task = _task()
    assert task.evaluate(_predict(task.model), Split(Restless())) == 1.0


def test_a_better_model_scores_higher_accuracy() -> None:
    task = _task()
    worse = copy.deepcopy(task.model)
    with torch.no_grad():
        worse.bias[0] += 5.0  # type: ignore[index, operator]
    assert task.metric.direction == "maximize"
    assert task.evaluate(_predict(worse), task.selection) == pytest.approx(1 / 3)
    assert task.evaluate(_predict(task.model), task.selection) == 1.0


def test_outputs_that_are_no_numbers_or_too_few_fail_the_trial() -> None:
    task = _task()
    with pytest.raises(MeasurementFailed, match="NaN"):
        task.evaluate(lambda inputs: np.full((batch_size_of(inputs), 3), np.nan), task.selection)
    with pytest.raises(MeasurementFailed, match="1 outputs for 60 samples"):
        task.evaluate(lambda inputs: np.zeros((1, 3)), task.selection)


def test_the_users_model_is_copied_and_put_in_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    before = copy.deepcopy(model.state_dict())
    task = _task(model=model)
    assert task.model is not model
    assert model.training
    assert not task.model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_normalisation_becomes_part_of_the_model() -> None:
    images = torch.rand(6, 2, 4, 4)
    loader = DataLoader(TensorDataset(images, torch.arange(6) % 2), batch_size=3)
    model = nn.Sequential(nn.Conv2d(2, 2, 4), nn.Flatten())
    task = _task(model=model, train=loader, selection=apart(loader), normalize=([0.5, 0.1], [0.2, 2.0]))
    means, stds = torch.tensor([0.5, 0.1]), torch.tensor([0.2, 2.0])
    expected = model((images - means[:, None, None]) / stds[:, None, None])
    torch.testing.assert_close(task.model(images), expected)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.layer(left) + right  # type: ignore[no-any-return]


class Rows(Dataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def _rows(kind: str) -> list[Any]:
    if kind == "dict":
        return [{"right": x, "label": y, "left": x} for x, y in zip(ONE_HOT, LABELS, strict=True)]
    if kind == "nested":
        return [{"in": {"l": x, "r": x}, "out": y} for x, y in zip(ONE_HOT, LABELS, strict=True)]
    return [(x, x, y) for x, y in zip(ONE_HOT, LABELS, strict=True)]


def _unpack_nested(batch: Any) -> tuple[Inputs, Tensor]:
    return (batch["in"]["l"], batch["in"]["r"]), batch["out"]


@pytest.mark.parametrize("kind", ["tuple", "dict", "nested"])
def test_several_inputs_come_as_tuple_dict_or_by_own_unpacking(kind: str) -> None:
    loader = DataLoader(Rows(_rows(kind)), batch_size=8)
    unpack = {"unpack": _unpack_nested} if kind == "nested" else {}
    task = _task(model=Two(), train=loader, selection=apart(loader, 3), **unpack)
    assert isinstance(task.example, dict) == (kind == "dict")
    assert batch_size_of(task.example) >= 2
    with torch.no_grad():
        expected = task.model(ONE_HOT, ONE_HOT).numpy()
    expected_accuracy = float((expected.argmax(1) == LABELS.numpy()).mean())
    assert task.evaluate(_predict(task.model), task.selection) == pytest.approx(expected_accuracy)


def test_the_loaders_collate_function_is_used() -> None:
    def collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in samples]) * 2, torch.stack([y for _, y in samples])

    loader = DataLoader(TensorDataset(ONE_HOT, LABELS), batch_size=4, collate_fn=collate)
    inputs, _ = next(_task(selection=loader).selection.batches(60))
    assert isinstance(inputs, tuple)
    assert torch.equal(inputs[0], 2 * ONE_HOT)


def test_calibration_is_512_samples_of_train_unless_given() -> None:
    rows = torch.arange(1300)
    train = DataLoader(TensorDataset(torch.eye(3)[rows % 3], rows % 3), batch_size=4)
    task = _task(train=train)
    assert len(task.calibration) == 512
    own = _task(train=train, calibration=_loader(9))
    assert len(own.calibration) == 9


def test_regression_gets_matching_losses_that_do_not_broadcast() -> None:
    targets = torch.tensor([1.0, 3.0, 5.0])
    loader = DataLoader(TensorDataset(torch.ones(3, 2), targets), batch_size=3)
    task = _task(model=nn.Linear(2, 1), train=loader, selection=apart(loader), metric="rmse")
    assert task.distillation is output_matching_loss
    assert task.loss(torch.tensor([[1.0], [3.0], [8.0]]), targets).item() == pytest.approx(3.0)
    assert _task().distillation is soft_label_loss


def test_own_loss_and_own_training_step_are_kept() -> None:
    def step(model: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        return forward(model, inputs).square().mean()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.abs().mean()

    task = _task(loss=loss, training_step=step)
    assert task.loss is loss
    assert task.training_step is step


def test_example_is_the_first_selection_samples_every_time() -> None:
    task = _task(selection=_loader(shuffle=True))
    assert isinstance(task.example, tuple)
    assert torch.equal(task.example[0], ONE_HOT[:8])


class _Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")


class _Mean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(0)


class _Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(ONE_HOT[0], LABELS[0])])


def _no_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


def _failing_step(model: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
    raise ValueError("bad step")


EMPTY = DataLoader(TensorDataset(ONE_HOT[:0], LABELS[:0]), batch_size=2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"model": _Broken()},
            TaskError,
            "the model fails on a selection batch: RuntimeError: mat1 and mat2",
        ),
        ({"model": _Mean()}, TaskError, r"for 8 samples the model gave outputs of shape \(3,\)"),
        ({"loss": _no_loss}, TaskError, r"one differentiable number, got shape \(8, 3\) with a gradient"),
        ({"training_step": _failing_step}, TaskError, "the loss fails on a training batch: ValueError: bad"),
        ({"loss": lambda outputs, targets: 1.0}, TaskError, "loss must be a tensor, got float"),
        ({"metric": "acc"}, TaskError, "unknown metric 'acc'"),
        ({"train": EMPTY}, DataError, "the train split has 0 samples"),
        ({"test": EMPTY}, DataError, "the test split has 0 samples"),
        ({"selection": DataLoader(_Stream())}, TaskError, "selection data set must have __len__"),
        ({"selection": [1, 2]}, TaskError, "must be a torch DataLoader, got list"),
        ({"selection": DataLoader(Rows([1]), batch_size=None)}, TaskError, "batch_size=None"),
        ({"labels": "abcd"}, DataError, "class 'd' has no training sample"),
        ({"labels": "ab"}, DataError, "has class 2, but there are 2 labels"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        _task(**changes)
    assert "\n" not in str(caught.value)


def test_known_targets_spare_reading_every_sample() -> None:
    class Known(Rows):
        targets = LABELS.tolist()

        def __getitem__(self, index: int) -> Any:
            reads.append(index)
            return super().__getitem__(index)

    reads: list[int] = []
    data = Known([(x, y) for x, y in zip(ONE_HOT, LABELS, strict=True)])
    _task(train=DataLoader(data, batch_size=2), labels="abc", metric="accuracy")
    with_known = len(reads)
    reads.clear()
    Known.targets = []
    _task(train=DataLoader(data, batch_size=2), labels="abc", metric="accuracy")
    assert len(reads) == with_known + 60


def test_without_test_data_there_is_no_test_split() -> None:
    assert _task().test is None
    assert len(_task(test=_loader(10)).test or ()) == 10


def test_the_fingerprint_follows_from_the_content() -> None:
    base = _task()
    assert _task().fingerprint == base.fingerprint
    assert _task(selection=_loader(59)).fingerprint != base.fingerprint
    assert _task(metric="macro_f1").fingerprint != base.fingerprint
    assert dataclasses.replace(base, name="other").fingerprint == base.fingerprint


def test_samples_that_fill_the_memory_are_evaluated_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In calls of 256 samples a U-Net of 512 x 512 pixels would take 169 GB."""
    sizes: list[int] = []

    def predict(inputs: Inputs) -> np.ndarray:
        sizes.append(batch_size_of(inputs))
        return np.asarray(forward(task.model, inputs).detach().numpy())

    task = _task()
    assert task.samples_per_call == 256
    task.evaluate(predict, task.selection)
    monkeypatch.setattr("petra_optuna.nn.batching._CALL_BYTES", 7 * 4 * (3 + 3))
    task = _task()
    task.evaluate(predict, task.selection)
    assert sizes == [60, *[7] * 8, 4]


def test_the_example_serves_in_training_also_when_an_evaluation_asked_for_it_first() -> None:
    task = _task()
    with torch.inference_mode():
        task.evaluate(_predict(task.model), task.selection)
    assert isinstance(task.example, tuple)
    assert not task.example[0].is_inference()
