"""Checkpoints of layers that descend from torch's, and of tensors that lie in memory in another order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from evaluation.test_checkpoint import assert_equal
from support.loaders import apart
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.evaluation import checkpoint
from petra_optuna.evaluation.checkpoint import DamagedCheckpoint
from petra_optuna.operations import Context, LowRank, Prune, Train
from petra_optuna.pipeline import Operation, Recipe
from petra_optuna.tasks import Task


class ActivatedNorm(nn.BatchNorm2d):
    """A batch norm with its activation, as timm has them."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(super().forward(input))


class PaddedConv(nn.Conv2d):
    """A convolution that pads by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, (1, 1, 1, 1)))


class OwnLinear(nn.Linear):
    pass


def images(norm: Callable[[int], nn.Module], middle: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3), norm(16), nn.ReLU(), middle or nn.Conv2d(16, 16, 3), norm(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


def volumes(norm: Callable[[int], nn.Module], middle: nn.Module) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv3d(1, 16, 2), norm(16), nn.ReLU(), middle, nn.ReLU(), nn.Conv3d(16, 16, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


IMAGES, VOLUMES = (1, 8, 8), (1, 4, 4, 4)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "norm with activation": (lambda: images(ActivatedNorm), IMAGES),
    "synchronised norm": (lambda: images(nn.SyncBatchNorm), IMAGES),
    "instance norm with statistics": (
        lambda: images(lambda width: nn.InstanceNorm2d(width, affine=True, track_running_stats=True)),
        IMAGES,
    ),
    "own convolution": (lambda: images(nn.BatchNorm2d, PaddedConv(16, 16, 3)), IMAGES),
    "transposed": (lambda: images(nn.BatchNorm2d, nn.ConvTranspose2d(16, 16, 2)), IMAGES),
    "transposed in three dimensions": (
        lambda: volumes(nn.BatchNorm3d, nn.ConvTranspose3d(16, 16, 2)),
        VOLUMES,
    ),
    "own linear": (
        lambda: nn.Sequential(
            nn.Flatten(), OwnLinear(64, 32), nn.ReLU(), OwnLinear(32, 32), nn.Linear(32, 3)
        ),
        IMAGES,
    ),
    "parametrized": (
        lambda: images(nn.BatchNorm2d, parametrizations.weight_norm(nn.Conv2d(16, 16, 3))),
        IMAGES,
    ),
    "older spectral norm": (lambda: images(nn.BatchNorm2d, spectral_norm(nn.Conv2d(16, 16, 3))), IMAGES),
    "channels last": (lambda: images(nn.BatchNorm2d).to(memory_format=torch.channels_last), IMAGES),  # type: ignore[call-overload]
}
CHAINS: dict[str, tuple[Operation, ...]] = {
    "prune, train": (Prune(removed=0.5), Train(epochs=1)),
    "low rank, train": (LowRank(rule="share", kept_weights=0.5), Train(epochs=1)),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("case", CASES)
def test_a_prefix_and_its_rebuilt_copy_go_on_alike(case: str, chain: str) -> None:
    torch.manual_seed(0)
    build, shape = CASES[case]
    data = TensorDataset(torch.randn(64, *shape), torch.arange(64) % 3)
    loader = DataLoader(data, batch_size=32)
    task = Task.from_loaders(build(), loader, apart(loader), metric="accuracy")
    context = Context(task, Recipe(batch_size=32), seed=0, epochs=1)
    first, second = CHAINS[chain]
    changed = first.apply(task.model, context)
    assert changed.report["changed"] is True
    rebuilt = checkpoint.from_bytes(checkpoint.to_bytes(changed.model, task.model), task.model)
    assert_equal(rebuilt, changed.model, task.example)
    assert_equal(
        second.apply(rebuilt, context).model, second.apply(changed.model, context).model, task.example
    )


def test_a_size_is_changed_in_descendants_alone() -> None:
    class Named(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.in_features = width

        def forward(self, values: Tensor) -> Tensor:
            return values

    base = nn.Sequential(OwnLinear(3, 4), Named(4))
    changed = nn.Sequential(OwnLinear(3, 2), Named(4))
    rebuilt = checkpoint.from_bytes(checkpoint.to_bytes(changed, base), base)
    assert rebuilt[0].out_features == 2  # type: ignore[index]
    with pytest.raises(checkpoint.OperationFailed, match="changed its 'in_features'"):
        checkpoint.to_bytes(nn.Sequential(OwnLinear(3, 4), Named(2)), base)


def test_an_edited_order_in_memory_is_refused() -> None:
    base = nn.Sequential(nn.Conv2d(2, 4, 3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = checkpoint.to_bytes(base, base)
    assert b"strides" in data
    with pytest.raises(DamagedCheckpoint):
        checkpoint.from_bytes(data.replace(b"[18,1,6,2]", b"[18,9,3,1]"), base)
