"""GRU and LSTM as one operator each while a model is exported.

The exporter finds the shapes of a recurrent layer's outputs by running it step by step, twice, at 0.25 s a
step: half a minute for a hundred steps, in every trial. An operator of our own gives the shapes at once and
is translated to the same ONNX graph as torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_gru, aten_lstm
from torch import Tensor

from petra_optuna.nn.function_mode import FunctionMode

_REST = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, "
    "bool batch_first"
)
_LIBRARY = torch.library.Library("petra_optuna", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"gru(Tensor input, Tensor hx, {_REST}) -> (Tensor, Tensor)")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"lstm(Tensor input, Tensor[] hx, {_REST}) -> (Tensor, Tensor, Tensor)")  # type: ignore[no-untyped-call]


def _gru_shapes(inputs: Tensor, hx: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _outputs(inputs, hx, rest), torch.empty_like(hx)


def _lstm_shapes(inputs: Tensor, hx: Sequence[Tensor], *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    hidden, cell = hx
    return _outputs(inputs, hidden, rest), torch.empty_like(hidden), torch.empty_like(cell)


def _outputs(inputs: Tensor, hidden: Tensor, rest: Sequence[Any]) -> Tensor:
    *_, bidirectional, _ = rest
    return inputs.new_empty(*inputs.shape[:2], hidden.shape[2] * (2 if bidirectional else 1))


_LIBRARY.impl("gru", _gru_shapes, "Meta")  # type: ignore[no-untyped-call]
_LIBRARY.impl("lstm", _lstm_shapes, "Meta")  # type: ignore[no-untyped-call]
_OPERATORS = {torch.gru: torch.ops.petra_optuna.gru, torch.lstm: torch.ops.petra_optuna.lstm}

TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.petra_optuna.gru.default: aten_gru,
    torch.ops.petra_optuna.lstm.default: aten_lstm,
}
"""Operators -> functions by which the exporter translates them to ONNX."""


class RecurrentOperators(FunctionMode):
    """Replaces GRU and LSTM, called as modules or functions, by the operators above within a ``with`` block.

    The operators give shapes and no values. Packed sequences are left to torch.
    """

    def intercept(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Redirect a call on a padded batch: its fourth argument is ``has_biases``."""
        operator = _OPERATORS.get(func)
        if operator is None or kwargs or not isinstance(args[3], bool):
            return func(*args, **kwargs)
        return operator(*args)
