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
"""Blocks of ``hidden_size`` rows in each weight and bias, in torch's order."""

State = Tensor | tuple[Tensor, Tensor]


class FactoredRecurrent(nn.Module):
    """Stands for an ``nn.GRU`` or ``nn.LSTM``: same arguments, call, results and parameter names.

    The values of its parameters are not initialised; ``assemble`` fills them.

    Args:
        kind: Which of the two.
        input_size: As in torch, like all that follow but the last three.
        hidden_size: Of each direction.
        num_layers: Stacked layers.
        bias: Whether there are biases.
        batch_first: Whether sequences come as (batch, time, features).
        dropout: Between stacked layers, while training.
        bidirectional: Whether each layer runs in both directions.
        ranks: Rank of each matrix that is stored as factors, by torch's name of the matrix.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        ValueError: When the kind is unknown, or ``ranks`` names no matrix of the layer or a rank below 1.
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
            raise ValueError(f"kind must be one of {', '.join(GATES)}, got {kind!r}")
        self.kind: Kind = kind
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        rows = GATES[kind] * hidden_size
        columns = {name: self._columns(name) for name in matrix_names(self)}
        unknown = [name for name, rank in ranks.items() if name not in columns or rank < 1]
        if unknown:
            raise ValueError(f"ranks must be positive and of {', '.join(columns)}; got {unknown[0]!r}")
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

    def parts(self, name: str) -> tuple[Tensor, Tensor]:
        """The factors (G h, r) and (r, n) of a matrix that is stored as such."""
        return getattr(self, f"{name}_left"), getattr(self, f"{name}_right")

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """As ``nn.GRU`` or ``nn.LSTM``: the last layer's outputs, and the last hidden state (and cell)."""
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
            output, last = output.squeeze(batch_dimension), [part.squeeze(1) for part in last]
        return output, _joined(last)

    def flatten_parameters(self) -> None:
        """Nothing to do; there because models call it on their recurrent layers."""

    def extra_repr(self) -> str:
        """The arguments, as the constructor takes them."""
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        listed = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"{self.kind}, {listed}, ranks={self.ranks}"

    def _run_packed(self, packed: PackedSequence, hx: State | None) -> tuple[PackedSequence, State]:
        data, batch_sizes, order, back = packed
        if hx is not None and order is not None:
            hx = _joined([part.index_select(1, order) for part in _parts(hx)])
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
        if back is not None:
            last = [part.index_select(1, back) for part in last]
        return PackedSequence(output, batch_sizes, order, back), _joined(last)

    def _state(self, hx: State | None, like: Tensor, batch_size: int, batched: bool) -> State:
        if hx is None:
            layers = self.num_layers * (2 if self.bidirectional else 1)
            zeros = like.new_zeros(layers, batch_size, self.hidden_size)
            return zeros if self.kind == "gru" else (zeros, zeros)
        return hx if batched else _joined([part.unsqueeze(1) for part in _parts(hx)])

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
    """Whether the module is a plain GRU or LSTM, or stands for one; projected LSTMs are not."""
    plain = type(module) in (nn.GRU, nn.LSTM) and not module.proj_size
    return plain or isinstance(module, FactoredRecurrent)


def matrix_names(layer: Recurrent) -> list[str]:
    """Torch's names of the weight matrices: input, then hidden, of each layer and direction."""
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    return [
        f"weight_{part}_l{index}{direction}"
        for index in range(layer.num_layers)
        for direction in directions
        for part in ("ih", "hh")
    ]


def weight_of(layer: Recurrent, name: str) -> Tensor:
    """The matrix of that name (G h, n), differentiable; the product where it is stored as factors."""
    if isinstance(layer, FactoredRecurrent) and hasattr(layer, f"{name}_left"):
        left, right = layer.parts(name)
        return left @ right
    found: Tensor = getattr(layer, name)
    return found


@torch.no_grad()
def assemble(layer: Recurrent, matrices: Mapping[str, Tensor | tuple[Tensor, Tensor]]) -> Recurrent:
    """The layer with other matrices: plain torch where all are whole, ``FactoredRecurrent`` otherwise.

    Args:
        layer: Gives arguments, biases, mode, device and dtype.
        matrices: Each matrix of ``matrix_names``, whole (G h, n) or as its factors (G h, r), (r, n).
    """
    ranks = {name: value[0].shape[1] for name, value in matrices.items() if isinstance(value, tuple)}
    made = _empty(layer, ranks)
    for name, value in matrices.items():
        if isinstance(value, tuple):
            getattr(made, f"{name}_left").copy_(value[0])
            getattr(made, f"{name}_right").copy_(value[1])
        else:
            getattr(made, name).copy_(value)
        if layer.bias and name.startswith("weight_hh"):
            for bias in (_bias_name(name, "ih"), _bias_name(name, "hh")):
                getattr(made, bias).copy_(getattr(layer, bias))
    made.train(layer.training)
    return made


def kind_of(layer: Recurrent) -> Kind:
    """Which of the two a layer is."""
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
    weight = next(layer.parameters())
    made: Recurrent
    if ranks:
        made = FactoredRecurrent(kind_of(layer), *arguments, ranks=ranks, device="meta", dtype=weight.dtype)
    else:
        plain = nn.GRU if kind_of(layer) == "gru" else nn.LSTM
        made = plain(*arguments, device="meta", dtype=weight.dtype)
    return made.to_empty(device=weight.device)


def _bias_name(matrix: str, part: str) -> str:
    return f"bias_{part}{matrix.removeprefix('weight_hh')}"


def _parts(state: State) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def _joined(parts: list[Tensor]) -> State:
    """One tensor for a GRU, hidden state and cell for an LSTM."""
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])
