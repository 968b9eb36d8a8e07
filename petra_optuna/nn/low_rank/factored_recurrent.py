"""GRU and LSTM whose weight matrices may be stored as two factors each.

``weight_ih_l0`` (G h, n) becomes ``weight_ih_l0_left`` (G h, r) times ``weight_ih_l0_right`` (r, n),
multiplied once a call, before the recurrence: the kernels are torch's own and an exported file holds
the factors in front of an ordinary GRU or LSTM node. The runtime multiplies them once when it loads
the file, so a file gets smaller and not slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Kind = Literal["gru", "lstm"]
GATES: Mapping[Kind, int] = {"gru": 3, "lstm": 4}
"""Number of blocks of ``hidden_size`` rows in each weight and bias, in torch's order."""

State = Tensor | tuple[Tensor, Tensor]
"""Hidden state of a GRU; hidden state and cell of an LSTM."""


class FactoredRecurrent(nn.Module):
    """An ``nn.GRU`` or ``nn.LSTM`` with factors: same arguments, call, results and parameter names.

    The values of its parameters are not initialised; ``assemble_recurrent`` fills them.

    Args:
        kind: ``gru`` or ``lstm``.
        input_size: Number of input features.
        hidden_size: Number of hidden units of each direction.
        num_layers: Number of stacked layers.
        bias: Whether there are biases.
        batch_first: Whether sequences come as (batch, time, features).
        dropout: Dropout probability between stacked layers, while training.
        bidirectional: Whether each layer runs in both directions.
        ranks: Rank of each matrix that is stored as factors, by torch's name of the matrix.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: When ``kind`` is unknown, or ``ranks`` names no matrix of the layer or a rank below 1.
    """

    def __init__(
        self,
        kind: Kind,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        ranks: Mapping[str, int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kind not in GATES:
            raise ValueError(f"`kind` must be one of {', '.join(GATES)}, got {kind!r}")
        self.kind: Kind = kind
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        rows = GATES[self.kind] * hidden_size
        columns = {name: self._columns(name) for name in matrix_names(self)}
        unknown = [name for name, rank in ranks.items() if name not in columns or rank < 1]
        if unknown:
            raise ValueError(f"`ranks` must be positive and of {', '.join(columns)}; got {unknown[0]!r}")
        for name, width in columns.items():
            if name in ranks:
                self._add(f"{name}_left", (rows, ranks[name]), device, dtype)
                self._add(f"{name}_right", (ranks[name], width), device, dtype)
            else:
                self._add(name, (rows, width), device, dtype)
            if bias and name.startswith("weight_hh"):
                self._add(_bias_name(name, "ih"), (rows,), device, dtype)
                self._add(_bias_name(name, "hh"), (rows,), device, dtype)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of each matrix that is stored as factors, by torch's name of the matrix."""
        return {
            name: getattr(self, f"{name}_left").shape[1]
            for name in matrix_names(self)
            if hasattr(self, f"{name}_left")
        }

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """The factors (G h, r) and (r, n) of a matrix that is stored as factors."""
        return getattr(self, f"{name}_left"), getattr(self, f"{name}_right")

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run like ``nn.GRU`` or ``nn.LSTM``: the last layer's outputs, the last hidden state (and cell)."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        batch_dimension = 0 if self.batch_first else 1
        batched = input.dim() == 3
        sequence = input if batched else input.unsqueeze(batch_dimension)
        run: Callable[..., tuple[Tensor, ...]] = torch.gru if self.kind == "gru" else torch.lstm
        output, *last = run(
            sequence,
            self._state(hx, sequence, sequence.shape[batch_dimension], batched),
            self._weights(),
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        if not batched:
            output, last = output.squeeze(batch_dimension), [state.squeeze(1) for state in last]
        return output, _as_state(last)

    def flatten_parameters(self) -> None:
        """Do nothing; models call this on their recurrent layers."""

    def extra_repr(self) -> str:
        """The arguments, as the constructor takes them."""
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        listed = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"{self.kind}, {listed}, ranks={self.ranks}"

    def _run_packed(self, packed: PackedSequence, hx: State | None) -> tuple[PackedSequence, State]:
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        if hx is not None and sorted_indices is not None:
            hx = _as_state([state.index_select(1, sorted_indices) for state in _state_tensors(hx)])
        run: Callable[..., tuple[Tensor, ...]] = torch.gru if self.kind == "gru" else torch.lstm
        output, *last = run(
            data,
            batch_sizes,
            self._state(hx, data, int(batch_sizes[0]), True),
            self._weights(),
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
        )
        if unsorted_indices is not None:
            last = [state.index_select(1, unsorted_indices) for state in last]
        return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), _as_state(last)

    def _state(self, hx: State | None, like: Tensor, batch_size: int, batched: bool) -> State:
        if hx is None:
            layers = self.num_layers * (2 if self.bidirectional else 1)
            zeros = like.new_zeros(layers, batch_size, self.hidden_size)
            return zeros if self.kind == "gru" else (zeros, zeros)
        return hx if batched else _as_state([state.unsqueeze(1) for state in _state_tensors(hx)])

    def _weights(self) -> list[Tensor]:
        """Matrices and biases in the order of torch's kernels."""
        weights: list[Tensor] = []
        for name in matrix_names(self):
            weights.append(weight_of(self, name))
            if self.bias and name.startswith("weight_hh"):
                weights += [getattr(self, _bias_name(name, "ih")), getattr(self, _bias_name(name, "hh"))]
        return weights

    def _columns(self, name: str) -> int:
        if name.startswith("weight_hh"):
            return self.hidden_size
        first = name.removesuffix("_reverse") == "weight_ih_l0"
        return self.input_size if first else self.hidden_size * (2 if self.bidirectional else 1)

    def _add(
        self,
        name: str,
        shape: tuple[int, ...],
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))


Recurrent = nn.GRU | nn.LSTM | FactoredRecurrent


def is_recurrent(module: nn.Module) -> bool:
    """Whether the module is a plain GRU or LSTM, or a factored one; projected LSTMs are not."""
    plain = type(module) in (nn.GRU, nn.LSTM) and not module.proj_size
    return plain or isinstance(module, FactoredRecurrent)


def matrix_names(layer: Recurrent) -> list[str]:
    """Torch's names of the weight matrices: input, then hidden, for each layer and direction."""
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    return [
        f"weight_{part}_l{index}{direction}"
        for index in range(layer.num_layers)
        for direction in directions
        for part in ("ih", "hh")
    ]


def weight_of(layer: Recurrent, name: str) -> Tensor:
    """The matrix of a name (G h, n), differentiable; the product where it is stored as factors."""
    if isinstance(layer, FactoredRecurrent) and hasattr(layer, f"{name}_left"):
        left, right = layer.factors(name)
        return left @ right
    weight: Tensor = getattr(layer, name)
    return weight


def is_trained(layer: Recurrent, name: str) -> bool:
    """Whether the matrix of a name is trained; a frozen one has no gradient."""
    stored: Tensor = getattr(layer, name) if hasattr(layer, name) else getattr(layer, f"{name}_left")
    return stored.requires_grad


@torch.no_grad()
def assemble_recurrent(layer: Recurrent, matrices: Mapping[str, Tensor | tuple[Tensor, Tensor]]) -> Recurrent:
    """Make the layer with other matrices: plain torch where all are whole, else ``FactoredRecurrent``.

    Args:
        layer: Layer that gives arguments, biases, mode, device, dtype, and which matrices are frozen.
        matrices: Each matrix of ``matrix_names``, whole (G h, n) or as its factors (G h, r), (r, n).
    """
    ranks = {name: value[0].shape[1] for name, value in matrices.items() if isinstance(value, tuple)}
    assembled = _empty(layer, ranks)
    for name, value in matrices.items():
        trains = is_trained(layer, name)
        if isinstance(value, tuple):
            getattr(assembled, f"{name}_left").copy_(value[0]).requires_grad_(trains)
            getattr(assembled, f"{name}_right").copy_(value[1]).requires_grad_(trains)
        else:
            getattr(assembled, name).copy_(value).requires_grad_(trains)
        if layer.bias and name.startswith("weight_hh"):
            for bias in (_bias_name(name, "ih"), _bias_name(name, "hh")):
                given = getattr(layer, bias)
                getattr(assembled, bias).copy_(given).requires_grad_(given.requires_grad)
    assembled.train(layer.training)
    return assembled


def recurrent_kind(layer: Recurrent) -> Kind:
    """Whether a layer is a GRU or an LSTM."""
    if isinstance(layer, FactoredRecurrent):
        return layer.kind
    return "gru" if isinstance(layer, nn.GRU) else "lstm"


def _empty(layer: Recurrent, ranks: Mapping[str, int]) -> Recurrent:
    """A layer of the same arguments, not initialised: initialising would draw random numbers."""
    arguments = (
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        layer.bias,
        layer.batch_first,
        layer.dropout,
        layer.bidirectional,
    )
    cell, weight = recurrent_kind(layer), next(layer.parameters())
    empty: Recurrent
    if ranks:
        empty = FactoredRecurrent(cell, *arguments, ranks=ranks, device="meta", dtype=weight.dtype)
    else:
        plain = nn.GRU if cell == "gru" else nn.LSTM
        empty = plain(*arguments, device="meta", dtype=weight.dtype)
    return empty.to_empty(device=weight.device)


def _bias_name(matrix: str, part: str) -> str:
    return f"bias_{part}{matrix.removeprefix('weight_hh')}"


def _state_tensors(state: State) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def _as_state(tensors: list[Tensor]) -> State:
    """One tensor for a GRU, hidden state and cell for an LSTM."""
    return tensors[0] if len(tensors) == 1 else (tensors[0], tensors[1])
