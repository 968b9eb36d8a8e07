from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from petra_optuna.errors import DataError, TaskError
from petra_optuna.tasks import Task
from petra_optuna.tasks.loaders import check_apart, split_of
from petra_optuna.tasks.split import Split, default_unpack

X = torch.arange(100.0).reshape(100, 1)
WHOLE = TensorDataset(X, torch.arange(100) % 2)
ROWS = [7, 3, 50, 99]


def _read(loader: DataLoader[Any]) -> list[float]:
    split = split_of("train", loader, default_unpack)
    return [float(value) for inputs, _ in split.batches(16) for value in inputs[0]]  # type: ignore[index]


SAMPLERS: dict[str, Callable[[], Any]] = {
    "random rows": lambda: SubsetRandomSampler(ROWS),
    "a tensor of rows": lambda: SubsetRandomSampler(torch.tensor(ROWS)),  # type: ignore[arg-type]
    "a list": lambda: ROWS,
    "an array": lambda: np.array(ROWS),
    "the first rows": lambda: SequentialSampler(range(5)),
    "the first rows at random": lambda: RandomSampler(range(5)),
    "all": lambda: RandomSampler(WHOLE),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["sampler", "batch sampler"])
def test_the_rows_of_a_loader_are_those_of_its_split(name: str, wrapped: bool) -> None:
    sampler = SAMPLERS[name]()
    if wrapped:
        loader = DataLoader(WHOLE, batch_sampler=BatchSampler(sampler, 4, drop_last=False))
    else:
        loader = DataLoader(WHOLE, batch_size=4, sampler=sampler)
    given = sorted(float(value) for images, _ in loader for value in images)
    assert sorted(_read(loader)) == given


def test_rows_that_a_loader_never_gives_are_not_in_its_split() -> None:
    assert len(_read(DataLoader(WHOLE, batch_size=30, drop_last=True))) == 90
    assert len(_read(DataLoader(WHOLE, batch_size=30, drop_last=True, shuffle=True))) == 100


class _Own(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(ROWS)


class _Twice(DataLoader[Any]):
    def __iter__(self) -> Any:
        yield from super().__iter__()
        yield from super().__iter__()


REFUSED: dict[str, Callable[[], DataLoader[Any]]] = {
    "WeightedRandomSampler": lambda: DataLoader(WHOLE, sampler=WeightedRandomSampler(torch.ones(100), 100)),
    "DistributedSampler": lambda: DataLoader(WHOLE, sampler=DistributedSampler(WHOLE, 2, 0)),
    "_Own": lambda: DataLoader(WHOLE, sampler=_Own()),
    "with replacement": lambda: DataLoader(WHOLE, sampler=RandomSampler(WHOLE, replacement=True)),
    "only some of the rows": lambda: DataLoader(WHOLE, sampler=RandomSampler(WHOLE, num_samples=9)),
    "batch sampler list": lambda: DataLoader(WHOLE, batch_sampler=[[1, 2], [3]]),
    "_Twice": lambda: _Twice(WHOLE),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_way_to_draw_that_a_split_cannot_keep_is_refused(name: str) -> None:
    with pytest.raises(TaskError, match=name) as refused:
        split_of("train", REFUSED[name](), default_unpack)
    assert "\n" not in str(refused.value)
    assert "train loader" in str(refused.value)


class _Changed(Dataset[Any]):
    """Changes the samples of a data set, as transforms after a random split do."""

    def __init__(self, inner: Dataset[Any]) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        image, target = self.inner[index]
        return image + 1, target


class _Files(Dataset[Any]):
    """Reads files, as torchvision's folders do."""

    def __init__(self, names: Sequence[str]) -> None:
        self.samples = [(name, 0) for name in names]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(len(self.samples[index][0]))]), 0


class _Array(Dataset[Any]):
    """Holds an array, as torchvision's CIFAR does."""

    def __init__(self, data: Tensor) -> None:
        self.data = data.clone()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index], 0


PAIRS: dict[str, Callable[[range, range], tuple[Dataset[Any], Dataset[Any]]]] = {
    "subsets": lambda a, b: (Subset(WHOLE, a), Subset(WHOLE, b)),
    "subsets of subsets": lambda a, b: (Subset(Subset(WHOLE, range(100)), a), Subset(WHOLE, b)),
    "concatenations": lambda a, b: (
        ConcatDataset([Subset(WHOLE, a[:5]), Subset(WHOLE, a[5:])]),
        Subset(ConcatDataset([WHOLE, _Array(X)]), b),
    ),
    "tensors in one memory": lambda a, b: (
        TensorDataset(X[a[0] : a[-1] + 1]),
        TensorDataset(X[b[0] : b[-1] + 1]),
    ),
    "changed samples": lambda a, b: (_Changed(Subset(WHOLE, a)), Subset(_Changed(WHOLE), b)),
    "files": lambda a, b: (_Files([f"{row}.png" for row in a]), _Files([f"{row}.png" for row in b])),
    "equal arrays": lambda a, b: (Subset(_Array(X), a), Subset(_Array(X), b)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_splits_that_share_rows_are_refused_and_others_are_not(name: str) -> None:
    def check(first: range, second: range) -> None:
        train, selection = PAIRS[name](first, second)
        check_apart({"train": Split(train), "selection": Split(selection)})

    check(range(60), range(60, 100))
    with pytest.raises(TaskError, match=r"^10 of the 50 rows of selection are rows of train too"):
        check(range(60), range(50, 100))


def test_calibration_may_be_a_part_of_train_and_of_nothing_else() -> None:
    train, selection = (Split(Subset(WHOLE, rows)) for rows in (range(60), range(60, 100)))
    check_apart({"train": train, "calibration": Split(Subset(WHOLE, range(9))), "selection": selection})
    with pytest.raises(TaskError, match="of selection are rows of calibration"):
        check_apart({"train": train, "calibration": selection, "selection": selection})


def test_a_copy_of_a_split_is_no_other_split() -> None:
    with pytest.raises(TaskError, match="100 of the 100 rows"):
        check_apart({"train": Split(WHOLE), "selection": Split(copy.deepcopy(WHOLE))})


def test_one_loader_given_twice_is_refused_by_from_loaders() -> None:
    loader = DataLoader(WHOLE, batch_size=8)
    with pytest.raises(TaskError, match="100 of the 100 rows of selection are rows of train"):
        Task.from_loaders(nn.Linear(1, 2), loader, loader, metric="accuracy")


class _Broken(Dataset[Any]):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 37:
            raise self.error
        return torch.tensor([float(index)]), index % 2


_FOREIGN = (
    *(OSError("truncated"), SyntaxError("broken PNG"), KeyError("x"), EOFError()),
    *(StopIteration(), MemoryError(), SystemError("tile cannot extend"), NameError("decode")),
)


@pytest.mark.parametrize("error", _FOREIGN, ids=lambda error: type(error).__name__)
def test_an_unreadable_sample_is_named_with_its_split(error: Exception) -> None:
    split = split_of("selection", DataLoader(_Broken(error), batch_size=4), default_unpack)
    with pytest.raises(DataError, match="sample 37 of the selection split cannot be read") as named:
        list(split.batches(16, shuffle_seed=3))
    assert type(error).__name__ in str(named.value)
    assert "\n" not in str(named.value)
