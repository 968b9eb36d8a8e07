"""Batches as people make them, and axes whose sizes vary: declared, or refused with the sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from petra_optuna.deploy import lower
from petra_optuna.errors import LoweringFailed, TaskError
from petra_optuna.evaluation.quality import predictor, quality_in_torch, quality_of
from petra_optuna.nn.inputs import DynamicAxes, call, sizes_along, to_feeds
from petra_optuna.operations import Context, Prune, QuantizeStatic, Train
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Metric, Task, joined_targets
from petra_optuna.tasks.batch import in_float32
from petra_optuna.tasks.split import default_unpack

VALUE, OTHER, TARGET = torch.ones(4, 2), torch.zeros(4, 2), torch.arange(4)
AXES: DynamicAxes = {"input": {1: "time"}}


@pytest.mark.parametrize(
    ("batch", "given"),
    [
        ((VALUE, TARGET), (VALUE,)),
        ([VALUE, OTHER, TARGET], (VALUE, OTHER)),
        (((VALUE, OTHER), TARGET), (VALUE, OTHER)),
        (({"a": VALUE}, TARGET), {"a": VALUE}),
        ({"a": VALUE, "b": None, "labels": TARGET}, {"a": VALUE}),
        ((VALUE, None, TARGET), (VALUE,)),
        ((VALUE.double(), TARGET), (VALUE,)),
        ((VALUE.half(), TARGET), (VALUE,)),
    ],
)
def test_batches_become_inputs_in_float32(batch: Any, given: Any) -> None:
    inputs, target = in_float32(default_unpack)(batch)
    assert type(inputs) is type(given)
    pairs = zip(to_feeds(inputs).items(), to_feeds(given).items(), strict=True)
    for (name, mine), (other_name, other) in pairs:
        assert name == other_name
        assert mine.dtype == other.dtype == np.float32
        assert np.array_equal(mine, other)
    assert torch.equal(target, TARGET)


@pytest.mark.parametrize("batch", [(VALUE, None, OTHER, TARGET), ([1, 2], TARGET), {"labels": TARGET}])
def test_batches_that_cannot_be_called_with_are_refused(batch: Any) -> None:
    with pytest.raises(TaskError):
        in_float32(default_unpack)(batch)


class Texts(Dataset[Any]):
    def __init__(self, shortest: int, longest: int, tokens: bool) -> None:
        generator = torch.Generator().manual_seed(longest)
        lengths = torch.randint(shortest, longest + 1, (48,), generator=generator).tolist()
        self.texts = [torch.randint(1, 20, (length,), generator=generator) for length in lengths]
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        text = self.texts[index]
        return text, text % 3 if self.tokens else text[0] % 3


def _padded(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    texts = nn.utils.rnn.pad_sequence([text for text, _ in samples], True)
    if samples[0][1].ndim == 0:
        return texts, torch.stack([target for _, target in samples])
    return texts, nn.utils.rnn.pad_sequence([target for _, target in samples], True, -100)


class Reader(nn.Module):
    def __init__(self, tokens: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = tokens
        self.table, self.conv, self.head = nn.Embedding(20, 16), nn.Conv1d(16, 32, 3, 1, 1), nn.Linear(32, 3)

    def forward(self, texts: Tensor) -> Tensor:
        found = self.conv(self.table(texts).transpose(1, 2)).relu()
        if self.tokens:
            return self.head(found.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]
        return self.head(found.mean(2))  # type: ignore[no-any-return]


def _loader(shortest: int, longest: int, tokens: bool = False) -> DataLoader[Any]:
    return DataLoader(Texts(shortest, longest, tokens), batch_size=16, collate_fn=_padded)


def _kept(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float((outputs.argmax(1) == targets)[targets != -100].mean())


def _task(tokens: bool = False, **more: Any) -> Task:
    metric = Metric("kept", "maximize", _kept) if tokens else "accuracy"
    loader = _loader(3, 20, tokens)
    loss = nn.CrossEntropyLoss() if tokens else None
    return Task.from_loaders(Reader(tokens), loader, apart(loader), metric=metric, loss=loss, **more)


def test_several_sizes_are_refused_with_the_sizes_and_named_axes_checked() -> None:
    for train, selection in (((3, 20), (9, 9)), ((9, 9), (3, 20))):
        with pytest.raises(TaskError, match=r"input 'input' has sizes from [3-9] to (1\d|20) along axis 1"):
            Task.from_loaders(Reader(False), _loader(*train), _loader(*selection), metric="accuracy")
    fixed = _loader(9, 9)
    assert Task.from_loaders(Reader(False), fixed, apart(fixed), metric="accuracy").other_examples == ()
    for dynamic in (
        {"texts": {1: "time"}},
        {"input": {2: "time"}},
        {"input": {0: "time"}},
        {"input": {1: ""}},
    ):
        with pytest.raises(TaskError, match="`dynamic`"):
            _task(dynamic=dynamic)


@pytest.mark.parametrize("tokens", [False, True])
def test_a_file_takes_every_length_and_its_quality_is_that_of_the_model(tokens: bool, tmp_path: Path) -> None:
    task = _task(tokens, dynamic=AXES)
    (other,) = task.other_examples
    assert sizes_along(other, AXES) != sizes_along(task.example, AXES)
    context = Context(task, Recipe(lr=1e-2, batch_size=32), seed=0, epochs=1)
    trained = Train(epochs=1).apply(task.model, context).model
    pruned = Prune(removed=0.3).apply(trained, context).model
    for conversion in (None, QuantizeStatic(calibration="percentile")):
        path = tmp_path / "model.onnx"
        lower(pruned, task.example, path, conversion, context, dynamic=AXES, others=task.other_examples)
        quality = quality_of(path, task, task.selection)
        assert quality == pytest.approx(quality_in_torch(pruned, task), abs=0.1 if conversion else 1e-9)
        run = predictor(path, 1)
        for length in (2, 7, 33):
            texts = (torch.randint(1, 20, (3, length)),)
            assert run(texts).shape == tuple(call(pruned, texts).shape)


def test_a_model_that_fixes_a_dynamic_axis_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values.reshape(len(values), 6).sum(1, keepdim=True)

    with pytest.raises(LoweringFailed):
        lower(Fixed(), (torch.randn(4, 6),), tmp_path / "model.onnx", dynamic=AXES)


def test_targets_of_several_lengths_are_filled_up_with_what_losses_ignore() -> None:
    whole = joined_targets([np.array([[1, 2]]), np.array([[3, 4, 5]])])
    assert whole.tolist() == [[1, 2, -100], [3, 4, 5]]
    assert np.isnan(joined_targets([np.array([[1.0]]), np.array([[3.0, 4.0]])])[0, 1])
    assert joined_targets([np.array([1, 2]), np.array([3])]).tolist() == [1, 2, 3]
