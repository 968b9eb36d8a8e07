from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from petra_optuna.errors import TaskError
from petra_optuna.nn.inputs import Inputs
from petra_optuna.tasks.split import Split, default_unpack

NUMBERS = torch.arange(103)
SPLIT = Split(TensorDataset(NUMBERS.float(), NUMBERS))


def _read(split: Split, batch_size: int = 10, **options: Any) -> list[int]:
    """The targets in the order read, after checking that inputs never part from them."""
    seen: list[int] = []
    for inputs, targets in split.batches(batch_size, **options):
        assert isinstance(inputs, tuple)
        assert torch.equal(inputs[0], targets.float())
        seen += targets.tolist()
    return seen


def test_file_order_reads_everything_once() -> None:
    assert _read(SPLIT) == NUMBERS.tolist()
    assert [len(targets) for _, targets in SPLIT.batches(50)] == [50, 50, 3]


def test_a_shuffle_is_a_permutation_that_follows_from_its_seed() -> None:
    first, again, other = (_read(SPLIT, shuffle_seed=seed) for seed in (5, 5, 6))
    assert sorted(first) == NUMBERS.tolist()
    assert first == again
    assert first not in (other, NUMBERS.tolist())


def test_a_shuffled_last_batch_of_one_is_left_out_and_counted() -> None:
    assert [len(targets) for _, targets in SPLIT.batches(51, shuffle_seed=0)] == [51, 51]
    assert [len(targets) for _, targets in SPLIT.batches(51)] == [51, 51, 1]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 51, 102, 103, 200])
@pytest.mark.parametrize("fraction", [0.001, 0.3, 1.0])
def test_steps_are_the_batches_that_training_reads(batch_size: int, fraction: float) -> None:
    read = list(SPLIT.batches(batch_size, shuffle_seed=1, fraction=fraction))
    assert len(read) == SPLIT.steps(batch_size, fraction)


def test_smaller_fractions_are_inside_larger_ones() -> None:
    subsets = [set(_read(SPLIT, fraction=fraction)) for fraction in (0.01, 0.1, 0.25, 0.5, 0.99, 1.0)]
    assert [len(subset) for subset in subsets] == [2, 11, 26, 52, 102, 103]
    assert all(small < large for small, large in pairwise(subsets))
    assert max(subsets[2]) > 80
    assert set(_read(SPLIT, fraction=0.25, shuffle_seed=3)) == subsets[2]


def test_limit_reads_the_first_ones() -> None:
    assert _read(SPLIT, limit=12) == list(range(12))


def test_reading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    _read(SPLIT, shuffle_seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_augmentation_is_asked_for_and_follows_from_the_seed() -> None:
    def noisy(inputs: Inputs, generator: torch.Generator) -> Inputs:
        assert isinstance(inputs, tuple)
        return (inputs[0] + torch.rand(len(inputs[0]), generator=generator),)

    split = Split(SPLIT.dataset, augment=noisy)

    def first(seed: int, augment: bool) -> Tensor:
        inputs, _ = next(split.batches(8, shuffle_seed=seed, augment=augment))
        assert isinstance(inputs, tuple)
        return inputs[0]

    assert torch.equal(first(1, True), first(1, True))
    assert not torch.equal(first(1, True), first(1, False))
    assert torch.equal(first(1, False), first(1, False).round())


def test_whole_batches_are_fetched_at_once_where_the_data_set_can() -> None:
    calls = []

    class Whole(Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
            calls.append(len(indices))
            return torch.tensor(indices).float(), torch.tensor(indices)

    split = Split(Whole(), collate=lambda batch: batch)
    assert _read(split, 8) == list(range(20))
    assert calls == [8, 8, 4]


X, Z, Y = torch.zeros(2, 3), torch.ones(2, 1), torch.tensor([0, 1])


@pytest.mark.parametrize("key", ["target", "label", "labels", "y"])
def test_dict_batches_give_keyword_inputs(key: str) -> None:
    inputs, targets = default_unpack({"image": X, key: Y, "mask": Z})
    assert isinstance(inputs, dict)
    assert list(inputs) == ["image", "mask"]
    assert targets is Y


def test_the_last_of_a_tuple_or_list_is_the_target() -> None:
    for batch in ((X, Z, Y), [X, Z, Y]):
        inputs, targets = default_unpack(batch)
        assert inputs == (X, Z)
        assert targets is Y


@pytest.mark.parametrize(
    ("batch", "shown"),
    [
        (X, "got Tensor"),
        ((X,), r"got tuple of \(Tensor\)"),
        ((X, "cat"), r"got tuple of \(Tensor, str\)"),
        ({"image": X}, r"got dict \{'image': Tensor\}"),
        ({"y": Y}, r"got dict \{'y': Tensor\}"),
        ({"image": X, "y": Y, "label": Y}, "got dict"),
    ],
)
def test_a_batch_that_cannot_be_parted_is_shown(batch: Any, shown: str) -> None:
    with pytest.raises(TaskError, match=shown):
        default_unpack(batch)
