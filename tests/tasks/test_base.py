from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from petra_optuna.errors import DataError
from petra_optuna.tasks.arrays import array_split
from petra_optuna.tasks.base import cached_base
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits, trained_base


def _build() -> nn.Module:
    return nn.Linear(3, 2)


class Trainer:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> nn.Module:
        self.calls += 1
        return _build()


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_base_is_trained_once_and_read_back_bit_for_bit(tmp_path: Path) -> None:
    train = Trainer()
    first = cached_base(tmp_path / "new", "net", {"seed": 1}, _build, train)
    second = cached_base(tmp_path / "new", "net", {"seed": 1}, _build, train)
    assert train.calls == 1
    assert torch.equal(_weights(first), _weights(second))
    assert not first.training
    cached_base(tmp_path / "new", "net", {"seed": 2}, _build, train)
    assert train.calls == 2
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_damaged_file_is_trained_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = Trainer()
    cached_base(tmp_path, "net", {}, _build, train)
    (file,) = tmp_path.glob("net-*.safetensors")
    file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        again = cached_base(tmp_path, "net", {}, _build, train)
    assert train.calls == 2
    assert "is damaged" in caplog.text
    assert torch.equal(_weights(cached_base(tmp_path, "net", {}, _build, train)), _weights(again))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot write to .*give another `cache_dir`"):
        cached_base(tmp_path / "file", "net", {}, _build, Trainer())


def test_a_base_is_cached_by_the_data_that_it_saw(tmp_path: Path) -> None:
    recipe = BaseRecipe(epochs=1, batch_size=16, peak_lr=0.1, label_smoothing=0.0)

    def base(seed: int) -> nn.Module:
        images = torch.randint(0, 255, (64, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
        split = array_split(images.to(torch.uint8), torch.arange(64) % 2, 255.0)
        build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2))  # noqa: E731
        data = LabeledSplits("toy", {"train": split}, ("even", "odd"), {})
        return trained_base(data, build, recipe, structure={}, cache_dir=tmp_path, seed=0)

    first, second, again = (base(seed).state_dict()["1.weight"] for seed in (1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
