"""What is called in place of layers that torch-pruning's graph cannot follow, while a model is traced.

A stand-in has the layer's shapes and is made of layers that the graph knows. What has left it after
pruning is then removed from the real layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from petra_optuna.nn.low_rank import State
from petra_optuna.nn.pruning.importance import WeightScores

NOT_PRUNED: Mapping[type[nn.Module], str] = {
    nn.EmbeddingBag: "embeddings that are summed inside their layer are not pruned",
    nn.RNNCellBase: "only whole GRU and LSTM layers are pruned, not cells",
    nn.RNN: "only GRU and LSTM layers are pruned",
}
"""LayerIndex with weights of which nothing is pruned, and why."""
_ROWS = 64
"""Rows of the stand-in for an embedding; what they hold does not matter."""


class Numbered(nn.LayerNorm):
    """A place in the graph that passes its input on and knows which channels are left.

    The graph takes it for a LayerNorm: pruning shortens weight and bias. The weight stands for what a
    channel owns in the real layer, the bias holds the channels' numbers.
    """

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__(channels, device=like.device, dtype=like.dtype)
        self.bias = nn.Parameter(torch.arange(channels, dtype=torch.float32, device=like.device))

    def forward(self, input: Tensor) -> Tensor:
        """The input (..., channels) as it is."""
        return input * self.weight

    def left(self) -> Tensor:
        """Numbers (channels,) of the channels that are left."""
        return self.bias.detach().long()


class Step(nn.Module):
    """One layer in one direction: hidden units (N, h), each of which depends on all inputs (N, n)."""

    def __init__(self, inputs: int, units: int, like: Tensor) -> None:
        super().__init__()
        self.mix = nn.Linear(inputs, units, bias=False, device="meta")
        self.mix.weight = nn.Parameter(_drawn(units, inputs, like) / math.sqrt(inputs))
        self.units = Numbered(units, like)

    def forward(self, rows: Tensor) -> Tensor:
        """Hidden units, which stay between -1 and 1 like real ones."""
        units: Tensor = self.units(self.mix(rows).tanh())
        return units


class EmbeddingStandIn(nn.Module):
    """Called in place of an embedding while a model is traced.

    Attributes:
        layer: The real one.
        calls: How often it was called since this was last set to 0.
    """

    layer: nn.Embedding
    refusal: str | None = None

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__()
        vars(self)["layer"] = layer
        self.calls = 0
        weight = _drawn(_ROWS, layer.embedding_dim, layer.weight)
        self.table = nn.Embedding(_ROWS, layer.embedding_dim, _weight=weight)
        self.columns = Numbered(layer.embedding_dim, layer.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Vectors (..., embedding_dim) for indices (...)."""
        self.calls += 1
        vectors: Tensor = self.columns(self.table(input % _ROWS))
        return vectors

    def scores(self, scores: WeightScores) -> dict[nn.Parameter, Tensor]:
        """What each column owns in the real layer, for the weight of ``Numbered``."""
        found = [scores[weight].sum(0) for weight in self.layer.parameters() if weight in scores]
        return {self.columns.weight: found[0]} if found else {}

    @torch.no_grad()
    def cut(self) -> None:
        """Remove from the real layer, in place, what has left this one."""
        take(self.layer, "weight", self.columns.left(), 1)
        self.layer.embedding_dim = self.layer.weight.shape[1]


class CellStandIn(nn.Module):
    """Called in place of a recurrent cell, of which nothing is pruned, while a model is traced.

    Attributes:
        layer: The real one.
        calls: How often it was called since this was last set to 0.
    """

    layer: nn.RNNCellBase
    refusal: str | None = NOT_PRUNED[nn.RNNCellBase]

    def __init__(self, layer: nn.RNNCellBase) -> None:
        super().__init__()
        vars(self)["layer"] = layer
        self.calls = 0
        self.step = Step(layer.input_size, layer.hidden_size, layer.weight_hh)

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """States of the real cell's shapes."""
        self.calls += 1
        state: Tensor = self.step(input)
        if hx is not None:
            state = state + touch(hx)
        return (state, state) if isinstance(self.layer, nn.LSTMCell) else state

    def scores(self, scores: WeightScores) -> dict[nn.Parameter, Tensor]:
        """None: nothing leaves."""
        return {}

    def cut(self) -> None:
        """Nothing has left."""


def touch(hx: State) -> Tensor:
    """Zero, but joined to the states in the graph."""
    return torch.stack([part.mean() for part in ((hx,) if isinstance(hx, Tensor) else hx)]).sum() * 0


def take(layer: nn.Module, name: str, kept: Tensor, dimension: int) -> None:
    """Keep some positions of a layer's parameter along one dimension, in place."""
    parameter: nn.Parameter = getattr(layer, name)
    if len(kept) == parameter.shape[dimension]:
        return
    taken = parameter.index_select(dimension, kept)
    setattr(layer, name, nn.Parameter(taken, requires_grad=parameter.requires_grad))


def _drawn(rows: int, columns: int, like: Tensor) -> Tensor:
    """Normal values from a generator of its own: a trace must not move the state of torch's."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(like)
