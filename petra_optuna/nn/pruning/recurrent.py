"""Hidden units of GRU and LSTM: their proxy in a trace, and their removal.

The proxy has one linear layer for every layer and direction, whose outputs are the hidden units. What
leaves the proxy leaves the real layer: a unit with its row in every gate and its column of the hidden
matrix, an input with its column of the input matrix.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from petra_optuna.nn.attention import LayeredAttention, LayeredWindowAttention
from petra_optuna.nn.low_rank import (
    GATES,
    FactoredRecurrent,
    Recurrent,
    State,
    matrix_names,
    recurrent_kind,
)
from petra_optuna.nn.pruning.attention import AttentionProxy
from petra_optuna.nn.pruning.importance import WeightScores
from petra_optuna.nn.pruning.proxies import (
    CellProxy,
    ChannelTracker,
    EmbeddingProxy,
    RecurrentStep,
    keep_positions,
    zero_joined_to,
)


class RecurrentProxy(nn.Module):
    """Proxy of a GRU or LSTM while a model is traced.

    Attributes:
        layer: Recurrent layer that this is called for.
        calls: Number of calls since this was last set to 0.
    """

    layer: Recurrent

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        vars(self)["layer"] = layer  # not registered: it is a part of the model, not of its proxy
        self.calls = 0
        self._reason_against: str | None = None
        like = next(layer.parameters())
        self._directions = 2 if layer.bidirectional else 1
        units = self._projected or layer.hidden_size
        widths = [layer.input_size, *[units * self._directions] * (layer.num_layers - 1)]
        self.columns = [ChannelTracker(width, like) for width in widths]
        self.steps = [RecurrentStep(width, units, like) for width in widths for _ in range(self._directions)]
        self.parts = nn.ModuleList([*self.columns, *self.steps])

    @property
    def unit_sets(self) -> tuple[nn.Module, ...]:
        """Trackers of the hidden units of each layer and direction, which all lose the same number."""
        return tuple(step.units for step in self.steps)

    @property
    def width(self) -> int:
        """Number of hidden units of all layers and directions of the real layer."""
        return self.layer.hidden_size * len(self.steps)

    @property
    def reason_against(self) -> str | None:
        """Reason why the layer cannot be pruned, by its arguments and its last calls; None where it can."""
        if self._projected:
            return "it projects its hidden state (proj_size)"
        return "it is called more than once in a forward pass" if self.calls > 1 else self._reason_against

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Outputs and last states of the real layer's shapes."""
        self.calls += 1
        self._reason_against = "it is given an initial state" if hx is not None else None
        if isinstance(input, PackedSequence):
            self._reason_against = "it reads packed sequences"
        sequence: Tensor = input.data if isinstance(input, PackedSequence) else input
        rows = sequence.reshape(-1, sequence.shape[-1])
        last_states: list[Tensor] = []
        for index, columns in enumerate(self.columns):
            rows = columns(rows)
            units = [step(rows) for step in self.steps[index * self._directions :][: self._directions]]
            if hx is not None:
                units = [hidden + zero_joined_to(hx) for hidden in units]
            shaped = [hidden.reshape(*sequence.shape[:-1], -1) for hidden in units]
            last_states += [self._last_step(hidden, input) for hidden in shaped]
            rows = torch.cat(units, 1) if self._directions == 2 else units[0]
        output = rows.reshape(*sequence.shape[:-1], -1)
        states = self._as_state(last_states)
        return (PackedSequence(output, *input[1:]) if isinstance(input, PackedSequence) else output), states

    def scores(self, scores: WeightScores) -> dict[nn.Parameter, Tensor]:
        """Scores of what each input and each hidden unit owns in the real layer.

        They are for the weights of the proxy's trackers. An input owns its column of the input matrix; a
        unit owns its rows of both matrices and biases in every gate, and its column of the hidden matrix.
        """
        layer = self.layer
        if self._projected or not any(parameter in scores for parameter in layer.parameters()):
            return {}
        owned: dict[nn.Parameter, Tensor] = {}
        for columns, step, inputs, hidden in self._matrices():
            names = [inputs, hidden]
            if layer.bias:
                names += [name.replace("weight", "bias") for name in names]
            rows = torch.stack([_sum_scores(layer, _rows_of(layer, name), scores, 0) for name in names]).sum(
                0
            )
            gates = rows.view(GATES[recurrent_kind(layer)], -1).sum(0)
            owned[step.units.weight] = gates + _sum_scores(layer, _columns_of(layer, hidden), scores, 1)
            read_columns = _sum_scores(layer, _columns_of(layer, inputs), scores, 1)
            owned[columns.weight] = owned.get(columns.weight, 0) + read_columns
        return owned

    @torch.no_grad()
    def prune_layer(self) -> None:
        """Remove from the real layer, in place, what has left this proxy.

        In a direction whose outputs nothing reads, it does not matter which units go.
        """
        layer, before = self.layer, self.layer.hidden_size
        after = min(len(step.units.remaining()) for step in self.steps)
        inputs_left = len(self.columns[0].remaining())
        if self._projected or (after == before and inputs_left == layer.input_size):
            return
        starts = before * torch.arange(GATES[recurrent_kind(layer)])[:, None]
        for columns, step, inputs, hidden in self._matrices():
            units = step.units.remaining()[:after]
            rows = (units + starts.to(units)).flatten()
            for name, kept in ((inputs, columns.remaining()), (hidden, units)):
                keep_positions(layer, _rows_of(layer, name), rows, 0)
                keep_positions(layer, _columns_of(layer, name), kept, 1)
                if layer.bias:
                    keep_positions(layer, name.replace("weight", "bias"), rows, 0)
                _merge_where_smaller(layer, name)
        layer.input_size, layer.hidden_size = inputs_left, after
        layer.flatten_parameters()

    def masked_weights(self, original: nn.Module) -> dict[Tensor, Tensor]:
        """Weights with zeros for the columns that have left, by weight of the unpruned layer."""
        masked: dict[Tensor, Tensor] = {}
        for columns, step, inputs, hidden in self._matrices():
            for name, kept in ((inputs, columns.remaining()), (hidden, step.units.remaining())):
                weight = getattr(original, f"{name}_right", None)
                weight = getattr(original, name) if weight is None else weight
                masked[weight] = torch.zeros_like(weight).index_copy(1, kept, weight.index_select(1, kept))
        return masked

    @property
    def _projected(self) -> int:
        return getattr(self.layer, "proj_size", 0)

    def _matrices(self) -> Iterator[tuple[ChannelTracker, RecurrentStep, str, str]]:
        """Tracker of the columns read, step, and names of the input and hidden matrix, of each step."""
        names = matrix_names(self.layer)
        columns = [tracker for tracker in self.columns for _ in range(self._directions)]
        return zip(columns, self.steps, names[::2], names[1::2], strict=True)

    def _last_step(self, units: Tensor, input: Tensor | PackedSequence) -> Tensor:
        if isinstance(input, PackedSequence):
            return units[: int(input.batch_sizes[0])]
        return units[:, -1] if units.ndim == 3 and self.layer.batch_first else units[-1]

    def _as_state(self, last: list[Tensor]) -> State:
        states = torch.stack(last)
        if recurrent_kind(self.layer) == "gru":
            return states
        if self._projected:
            cells = states.mean(-1, keepdim=True).expand(*states.shape[:-1], self.layer.hidden_size)
            return states, cells
        return states, torch.stack(last)


Proxy = RecurrentProxy | EmbeddingProxy | CellProxy | AttentionProxy


def proxy_for(layer: nn.Module) -> Proxy | None:
    """The proxy of a layer that needs one, or None."""
    if isinstance(layer, nn.GRU | nn.LSTM | FactoredRecurrent):
        return RecurrentProxy(layer)
    if isinstance(layer, nn.RNNCellBase):
        return CellProxy(layer)
    if isinstance(layer, LayeredAttention | LayeredWindowAttention):
        return AttentionProxy(layer)
    return EmbeddingProxy(layer) if type(layer) is nn.Embedding else None


def _rows_of(layer: Recurrent, name: str) -> str:
    """Name of the parameter whose rows are those of the matrix or bias."""
    return f"{name}_left" if hasattr(layer, f"{name}_left") else name


def _columns_of(layer: Recurrent, name: str) -> str:
    """Name of the parameter whose columns are those of the matrix."""
    return f"{name}_right" if hasattr(layer, f"{name}_right") else name


def _sum_scores(layer: Recurrent, name: str, scores: WeightScores, kept: int) -> Tensor:
    """Scores of a parameter, summed over all dimensions but ``kept``."""
    parameter: nn.Parameter = getattr(layer, name)
    values = scores.get(parameter, torch.zeros_like(parameter))
    return values.movedim(kept, 0).flatten(1).sum(1) if values.ndim > 1 else values


def _merge_where_smaller(layer: Recurrent, name: str) -> None:
    """Multiply two factors into one matrix, in place, where that has no more weights than they."""
    if not hasattr(layer, f"{name}_left"):
        return
    left, right = getattr(layer, f"{name}_left"), getattr(layer, f"{name}_right")
    if left.shape[0] * right.shape[1] > left.numel() + right.numel():
        return
    whole = nn.Parameter(left @ right, requires_grad=left.requires_grad)
    parameters = list(layer.named_parameters())
    for registered, _ in parameters:
        delattr(layer, registered)
    for registered, parameter in parameters:
        if registered == f"{name}_left":
            layer.register_parameter(name, whole)
        elif registered != f"{name}_right":
            layer.register_parameter(registered, parameter)
