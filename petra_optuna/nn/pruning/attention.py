"""Proxy of a layered attention module while a model is traced: which of its inputs and outputs remain.

Its heads are another matter, and nothing outside depends on them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.nn.attention import LayeredAttention, LayeredWindowAttention
from petra_optuna.nn.pruning.heads import making_layer, reading_layer
from petra_optuna.nn.pruning.importance import WeightScores
from petra_optuna.nn.pruning.proxies import ChannelTracker, RecurrentStep, keep_positions, zero_joined_to


class AttentionProxy(nn.Module):
    """Proxy of a layered attention module while a model is traced; each output depends on all inputs.

    Attributes:
        layer: Attention module that this is called for.
        calls: Number of calls since this was last set to 0.
    """

    layer: LayeredAttention | LayeredWindowAttention

    def __init__(self, layer: LayeredAttention | LayeredWindowAttention) -> None:
        super().__init__()
        vars(self)["layer"] = layer
        self.calls = 0
        self._reads_one = True
        like = next(layer.parameters())
        self.columns = ChannelTracker(layer.embed_dim, like)
        self.step = RecurrentStep(layer.embed_dim, layer.output_dim, like)

    @property
    def reason_against(self) -> str | None:
        """Reason why its inputs and outputs cannot leave, by its last calls; None where they can."""
        if self.calls > 1:
            return "it is called more than once in a forward pass"
        if self._projections()[0] is None or not self._reads_one:
            return "it reads queries, keys and values from several tensors"
        return None

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, *_: Any, **masks: Any
    ) -> Any:
        """Outputs of the real module's shapes."""
        self.calls += 1
        outputs: Tensor = self.step(self.columns(query))
        if isinstance(self.layer, LayeredWindowAttention):
            return outputs
        assert key is not None
        assert value is not None
        self._reads_one = query is key and key is value
        if not self._reads_one:
            outputs = outputs + zero_joined_to((key, value))
        batch, targets = outputs.shape[:2] if self.layer.batch_first else outputs.shape[1::-1]
        sources = key.shape[1] if self.layer.batch_first else key.shape[0]
        return outputs, outputs.new_zeros(batch, targets, sources) + zero_joined_to(outputs)

    def scores(self, scores: WeightScores) -> dict[nn.Parameter, Tensor]:
        """Scores of what each input and each output owns in the real module, for the trackers' weights."""
        reading, making = self._projections()
        if reading is None:
            return {}
        owned = ((self.columns, reading, 0), (self.step.units, making, 1))
        return {
            tracker.weight: scores[weight].sum(dimension)
            for tracker, layer, dimension in owned
            for weight in layer.parameters()
            if weight in scores and weight.ndim == 2
        }

    @torch.no_grad()
    def prune_layer(self) -> None:
        """Remove from the real module, in place, what has left this proxy."""
        reading, making = self._projections()
        inputs, outputs = self.columns.remaining(), self.step.units.remaining()
        if reading is None or (len(inputs), len(outputs)) == (self.layer.embed_dim, self.layer.output_dim):
            return
        keep_positions(reading, "weight", inputs, 1)
        keep_positions(making, "weight", outputs, 0)
        if making.bias is not None:
            keep_positions(making, "bias", outputs, 0)
        reading.in_features, making.out_features = len(inputs), len(outputs)
        self.layer.embed_dim, self.layer.output_dim = len(inputs), len(outputs)

    def masked_weights(self, original: nn.Module) -> dict[Tensor, Tensor]:
        """Weights with zeros for the inputs that have left, by weight of the unpruned module."""
        reading, _ = _projections(original)
        if reading is None:
            return {}
        kept, weight = self.columns.remaining(), reading.weight
        return {weight: torch.zeros_like(weight).index_copy(1, kept, weight.index_select(1, kept))}

    def _projections(self) -> tuple[nn.Linear | None, nn.Linear]:
        return _projections(self.layer)


def _projections(layer: nn.Module) -> tuple[nn.Linear | None, nn.Linear]:
    """The layer that reads the inputs, None where there are several, and the one that makes the outputs."""
    window = isinstance(layer, LayeredWindowAttention)
    reading: nn.Module | None = getattr(layer, "qkv" if window else "in_proj", None)
    making = making_layer(layer.get_submodule("proj" if window else "out_proj"))
    assert isinstance(making, nn.Linear)
    if reading is None:
        return None, making
    reading = reading_layer(reading)
    assert isinstance(reading, nn.Linear)
    return reading, making
