"""Hidden units of GRU and LSTM: what stands for them in a trace, and their removal.

The stand-in has one linear layer for every layer and direction, whose outputs are the hidden units. What
leaves it leaves the real layer: a unit with its row in every gate and its column of the hidden matrix,
an input with its column of the input matrix.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from petra_optuna.nn.low_rank import (
    GATES,
    FactoredRecurrent,
    Recurrent,
    State,
    kind_of,
    matrix_names,
)
from petra_optuna.nn.pruning.importance import WeightScores
from petra_optuna.nn.pruning.proxies import CellStandIn, EmbeddingStandIn, Numbered, Step, take, touch


class RecurrentStandIn(nn.Module):
    """Called in place of a GRU or LSTM while a model is traced.

    Attributes:
        layer: The real one.
        calls: How often it was called since this was last set to 0.
    """

    layer: Recurrent

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        vars(self)["layer"] = layer  # not registered: it is a part of the model, not of its stand-in
        self.calls = 0
        self._refusal: str | None = None
        like = next(layer.parameters())
        self._directions = 2 if layer.bidirectional else 1
        units = self._projected or layer.hidden_size
        widths = [layer.input_size, *[units * self._directions] * (layer.num_layers - 1)]
        self.columns = [Numbered(width, like) for width in widths]
        self.steps = [Step(width, units, like) for width in widths for _ in range(self._directions)]
        self.parts = nn.ModuleList([*self.columns, *self.steps])

    @property
    def sets(self) -> tuple[nn.Module, ...]:
        """The hidden units of each layer and direction, all of which must lose the same number."""
        return tuple(step.units for step in self.steps)

    @property
    def width(self) -> int:
        """Hidden units of all layers and directions of the real layer."""
        return self.layer.hidden_size * len(self.steps)

    @property
    def refusal(self) -> str | None:
        """Why the layer cannot be pruned, as its arguments and its last calls say."""
        if self._projected:
            return "it projects its hidden state (proj_size)"
        return "it is called more than once in a forward pass" if self.calls > 1 else self._refusal

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Outputs and last states of the real layer's shapes."""
        self.calls += 1
        self._refusal = "it is given an initial state" if hx is not None else None
        if isinstance(input, PackedSequence):
            self._refusal = "it reads packed sequences"
        sequence: Tensor = input.data if isinstance(input, PackedSequence) else input
        rows = sequence.reshape(-1, sequence.shape[-1])
        last: list[Tensor] = []
        for index, columns in enumerate(self.columns):
            rows = columns(rows)
            units = [step(rows) for step in self.steps[index * self._directions :][: self._directions]]
            if hx is not None:
                units = [each + touch(hx) for each in units]
            shaped = [each.reshape(*sequence.shape[:-1], -1) for each in units]
            last += [self._last(each, input) for each in shaped]
            rows = torch.cat(units, 1) if self._directions == 2 else units[0]
        output = rows.reshape(*sequence.shape[:-1], -1)
        states = self._states(last)
        return (PackedSequence(output, *input[1:]) if isinstance(input, PackedSequence) else output), states

    def scores(self, scores: WeightScores) -> dict[nn.Parameter, Tensor]:
        """What each input and each hidden unit owns in the real layer, for the weights of ``Numbered``.

        An input owns its column of the input matrix; a unit its rows of both matrices and biases in
        every gate and its column of the hidden matrix.
        """
        layer = self.layer
        if self._projected or not any(parameter in scores for parameter in layer.parameters()):
            return {}
        owned: dict[nn.Parameter, Tensor] = {}
        for columns, step, inputs, hidden in self._matrices():
            names = [inputs, hidden]
            if layer.bias:
                names += [name.replace("weight", "bias") for name in names]
            rows = torch.stack([_summed(layer, _rows_of(layer, name), scores, 0) for name in names]).sum(0)
            gates = rows.view(GATES[kind_of(layer)], -1).sum(0)
            owned[step.units.weight] = gates + _summed(layer, _columns_of(layer, hidden), scores, 1)
            below = _summed(layer, _columns_of(layer, inputs), scores, 1)
            owned[columns.weight] = owned.get(columns.weight, 0) + below
        return owned

    @torch.no_grad()
    def cut(self) -> None:
        """Remove from the real layer, in place, what has left this one.

        Of a direction that nothing reads any units may go.
        """
        layer, before = self.layer, self.layer.hidden_size
        after = min(len(step.units.left()) for step in self.steps)
        inputs_left = len(self.columns[0].left())
        if self._projected or (after == before and inputs_left == layer.input_size):
            return
        starts = before * torch.arange(GATES[kind_of(layer)])[:, None]
        for columns, step, inputs, hidden in self._matrices():
            units = step.units.left()[:after]
            rows = (units + starts.to(units)).flatten()
            for name, kept in ((inputs, columns.left()), (hidden, units)):
                take(layer, _rows_of(layer, name), rows, 0)
                take(layer, _columns_of(layer, name), kept, 1)
                if layer.bias:
                    take(layer, name.replace("weight", "bias"), rows, 0)
                _merge_where_smaller(layer, name)
        layer.input_size, layer.hidden_size = inputs_left, after
        layer.flatten_parameters()

    def silenced(self, twin: nn.Module) -> dict[Tensor, Tensor]:
        """Weights of an uncut twin of the real layer, with zeros for the columns that have left."""
        found: dict[Tensor, Tensor] = {}
        for columns, step, inputs, hidden in self._matrices():
            for name, kept in ((inputs, columns.left()), (hidden, step.units.left())):
                weight = getattr(twin, f"{name}_right", None)
                weight = getattr(twin, name) if weight is None else weight
                found[weight] = torch.zeros_like(weight).index_copy(1, kept, weight.index_select(1, kept))
        return found

    @property
    def _projected(self) -> int:
        return getattr(self.layer, "proj_size", 0)

    def _matrices(self) -> Iterator[tuple[Numbered, Step, str, str]]:
        """Each step with the columns that it reads and the names of its input and hidden matrix."""
        names = matrix_names(self.layer)
        columns = [each for each in self.columns for _ in range(self._directions)]
        return zip(columns, self.steps, names[::2], names[1::2], strict=True)

    def _last(self, units: Tensor, input: Tensor | PackedSequence) -> Tensor:
        if isinstance(input, PackedSequence):
            return units[: int(input.batch_sizes[0])]
        return units[:, -1] if units.ndim == 3 and self.layer.batch_first else units[-1]

    def _states(self, last: list[Tensor]) -> State:
        states = torch.stack(last)
        if kind_of(self.layer) == "gru":
            return states
        if self._projected:
            cells = states.mean(-1, keepdim=True).expand(*states.shape[:-1], self.layer.hidden_size)
            return states, cells
        return states, torch.stack(last)


Proxy = RecurrentStandIn | EmbeddingStandIn | CellStandIn


def stand_in_for(layer: nn.Module) -> Proxy | None:
    """The stand-in of a layer that needs one."""
    if isinstance(layer, nn.GRU | nn.LSTM | FactoredRecurrent):
        return RecurrentStandIn(layer)
    if isinstance(layer, nn.RNNCellBase):
        return CellStandIn(layer)
    return EmbeddingStandIn(layer) if type(layer) is nn.Embedding else None


def _rows_of(layer: Recurrent, name: str) -> str:
    """The parameter whose rows are those of the matrix or bias."""
    return f"{name}_left" if hasattr(layer, f"{name}_left") else name


def _columns_of(layer: Recurrent, name: str) -> str:
    """The parameter whose columns are those of the matrix."""
    return f"{name}_right" if hasattr(layer, f"{name}_right") else name


def _summed(layer: Recurrent, name: str, scores: WeightScores, kept: int) -> Tensor:
    """Scores of a parameter summed over all dimensions but one."""
    parameter: nn.Parameter = getattr(layer, name)
    values = scores.get(parameter, torch.zeros_like(parameter))
    return values.movedim(kept, 0).flatten(1).sum(1) if values.ndim > 1 else values


def _merge_where_smaller(layer: Recurrent, name: str) -> None:
    """Two factors become one matrix, in their place, where that has no more weights than they."""
    if not hasattr(layer, f"{name}_left"):
        return
    left, right = getattr(layer, f"{name}_left"), getattr(layer, f"{name}_right")
    if left.shape[0] * right.shape[1] > left.numel() + right.numel():
        return
    whole = nn.Parameter(left @ right, requires_grad=left.requires_grad)
    parameters = list(layer.named_parameters())
    for known, _ in parameters:
        delattr(layer, known)
    for known, parameter in parameters:
        if known == f"{name}_left":
            layer.register_parameter(name, whole)
        elif known != f"{name}_right":
            layer.register_parameter(known, parameter)
