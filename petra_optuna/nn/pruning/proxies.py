"""Proxies of layers that torch-pruning's graph cannot follow, called for them while a model is traced.

A proxy has the layer's shapes and is made of layers that the graph knows. What has left the proxy after
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
"""Classes of layers with weights of which nothing is pruned, and why."""
_ROWS = 64
"""Rows of an embedding's proxy; what they hold does not matter."""


class ChannelTracker(nn.LayerNorm):
    """A layer of the graph that passes its input on and knows which channels remain after pruning.

    The graph takes it for a LayerNorm: pruning shortens weight and bias. The weight stands for what a
    channel owns in the real layer, the bias holds the channels' numbers.
    """

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__(channels, device=like.device, dtype=like.dtype)
        self.bias = nn.Parameter(torch.arange(channels, dtype=torch.float32, device=like.device))

    def forward(self, input: Tensor) -> Tensor:
        """The input (..., channels) as it is."""
        return input * self.weight

    def remaining(self) -> Tensor:
        """Numbers (channels,) of the channels that remain."""
        return self.bias.detach().long()


class RecurrentStep(nn.Module):
    """One recurrent layer in one direction: maps inputs (N, n) to hidden units (N, h).

    Each unit depends on all inputs.
    """

    def __init__(self, inputs: int, units: int, like: Tensor) -> None:
        super().__init__()
        self.mix = nn.Linear(inputs, units, bias=False, device="meta")
        self.mix.weight = nn.Parameter(_random_matrix(units, inputs, like) / math.sqrt(inputs))
        self.units = ChannelTracker(units, like)

    def forward(self, rows: Tensor) -> Tensor:
        """Hidden units, which stay between -1 and 1 like real ones."""
        units: Tensor = self.units(self.mix(rows).tanh())
        return units


class EmbeddingProxy(nn.Module):
    """Proxy of an embedding while a model is traced.

    Attributes:
        layer: Embedding that this is called for.
        calls: Number of calls since this was last set to 0.
        reason_against: Reason why the layer cannot be pruned: none.
    """

    layer: nn.Embedding
    reason_against: str | None = None

    def __init__(self, layer: nn.Embedding) -> None:
        super().__init__()
        vars(self)["layer"] = layer
        self.calls = 0
        weight = _random_matrix(_ROWS, layer.embedding_dim, layer.weight)
        self.table = nn.Embedding(_ROWS, layer.embedding_dim, _weight=weight)
        self.columns = ChannelTracker(layer.embedding_dim, layer.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Vectors (..., embedding_dim) for indices (...)."""
        self.calls += 1
        vectors: Tensor = self.columns(self.table(input % _ROWS))
        return vectors

    def scores(self, scores: WeightScores) -> dict[nn.Parameter, Tensor]:
        """Scores of what each column owns in the real layer, for the weight of ``ChannelTracker``."""
        summed = [scores[weight].sum(0) for weight in self.layer.parameters() if weight in scores]
        return {self.columns.weight: summed[0]} if summed else {}

    @torch.no_grad()
    def prune_layer(self) -> None:
        """Remove from the real layer, in place, what has left this proxy."""
        keep_positions(self.layer, "weight", self.columns.remaining(), 1)
        self.layer.embedding_dim = self.layer.weight.shape[1]


class CellProxy(nn.Module):
    """Proxy of a recurrent cell, of which nothing is pruned, while a model is traced.

    Attributes:
        layer: Cell that this is called for.
        calls: Number of calls since this was last set to 0.
        reason_against: Reason why the cell cannot be pruned.
    """

    layer: nn.RNNCellBase
    reason_against: str | None = NOT_PRUNED[nn.RNNCellBase]

    def __init__(self, layer: nn.RNNCellBase) -> None:
        super().__init__()
        vars(self)["layer"] = layer
        self.calls = 0
        self.step = RecurrentStep(layer.input_size, layer.hidden_size, layer.weight_hh)

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """States of the real cell's shapes."""
        self.calls += 1
        state: Tensor = self.step(input)
        if hx is not None:
            state = state + zero_joined_to(hx)
        return (state, state) if isinstance(self.layer, nn.LSTMCell) else state

    def scores(self, scores: WeightScores) -> dict[nn.Parameter, Tensor]:
        """No scores: nothing leaves a cell."""
        return {}

    def prune_layer(self) -> None:
        """Do nothing: nothing has left."""


def zero_joined_to(hx: State) -> Tensor:
    """A zero that the graph joins to the states."""
    return torch.stack([part.mean() for part in ((hx,) if isinstance(hx, Tensor) else hx)]).sum() * 0


def keep_positions(layer: nn.Module, name: str, kept: Tensor, dimension: int) -> None:
    """Keep some positions of a layer's parameter along one dimension, in place."""
    parameter: nn.Parameter = getattr(layer, name)
    if len(kept) == parameter.shape[dimension]:
        return
    selected = parameter.index_select(dimension, kept)
    setattr(layer, name, nn.Parameter(selected, requires_grad=parameter.requires_grad))


def _random_matrix(rows: int, columns: int, like: Tensor) -> Tensor:
    """Normal values from a private generator: a trace must not move the state of torch's."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(like)
