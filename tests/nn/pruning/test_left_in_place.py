"""What pruning cannot do stays as it is, is named, and stops nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from torch.nn.utils import prune as masks

from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.pruning.eligibility import NOT_FULLY_TRACED
from petra_optuna.nn.pruning.importance import magnitude_scores
from petra_optuna.nn.pruning.prune import PruningResult, prune_channels


def pruned(model: nn.Module, inputs: Inputs) -> PruningResult:
    return prune_channels(model, inputs, lambda private: magnitude_scores(private, 2), 0.5, "local")


class Window(nn.Module):
    """Attention within windows of 2 x 2, of which torch-pruning's graph never sees the end."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(9, heads) * 0.02)
        self.register_buffer("index", torch.arange(16) % 9)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        y = self.norm(x).view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        qkv = nn.functional.linear(y, self.qkv.weight, self.qkv.bias)
        q, k, v = qkv.reshape(-1, 4, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].view(4, 4, -1).permute(2, 0, 1).unsqueeze(0)
        y = ((q @ k.transpose(-2, -1) / 8**0.5 + bias).softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c)
        y = nn.functional.linear(y, self.out.weight, self.out.bias).view(b, h // 2, w // 2, 2, 2, c)
        x = x + y.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return x + self.mlp(x)


class Windowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(1, 16, 2, 2), Window(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_the_search_for_coupled_channels_ends() -> None:
    torch.manual_seed(0)
    result = pruned(Windowed().eval(), (torch.randn(2, 1, 8, 8),))
    assert result.widths == {"block.mlp.0": (32, 16)}
    assert result.left_out["block.mlp.2"] == NOT_FULLY_TRACED


def test_a_walk_that_is_too_long_leaves_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petra_optuna.nn.pruning.coupling.LONGEST_WALK", 150)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2)).eval()
    result = pruned(model, (torch.randn(2, 4),))
    assert result.widths == {"0": (16, 8)}
    assert result.left_out["2"] == NOT_FULLY_TRACED


class Strict(nn.Module):
    """Refuses fewer channels behind its first layer, by an exception of its own choice."""

    def __init__(self, refusal: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 2)
        self.refusal = refusal

    def forward(self, values: Tensor) -> Tensor:
        values = self.first(values).relu()
        self.refusal(values)
        return self.head(self.second(values).relu())


def _asserts(values: Tensor) -> None:
    assert values.shape[1] == 32


def _looks_up(values: Tensor) -> None:
    {32: 1.0}[values.shape[1]]


def _divides(values: Tensor) -> None:
    1 // (values.shape[1] // 32)


@pytest.mark.parametrize("refusal", [_asserts, _looks_up, _divides])
def test_whatever_a_forward_raises_costs_its_own_layer_alone(refusal: Callable[[Tensor], None]) -> None:
    torch.manual_seed(0)
    result = pruned(Strict(refusal).eval(), (torch.randn(2, 4),))
    assert result.widths == {"second": (32, 16)}
    assert "does not run with fewer channels" in result.left_out["first"]


COMPUTED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "parametrization": parametrizations.weight_norm,
    "weight norm": weight_norm,
    "mask": lambda layer: masks.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.parametrize("form", COMPUTED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_layers_with_computed_weights_stay_and_the_others_are_pruned(form: str) -> None:
    torch.manual_seed(0)
    middle = COMPUTED[form](nn.Linear(32, 32))
    model = nn.Sequential(
        *(nn.Linear(4, 32), nn.ReLU(), middle, nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    )
    with torch.no_grad():
        model(torch.randn(2, 4))
    result = pruned(model.eval(), (torch.randn(2, 4),))
    assert result.widths == {"4": (32, 16)}
    assert result.left_out["0"] == result.left_out["2"] == "the weights of 2 are computed from other tensors"
