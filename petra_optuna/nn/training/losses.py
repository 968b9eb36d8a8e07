"""Known losses in the forms in which people give them: functions, modules, partials."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.inputs import Inputs

Loss = Callable[[Tensor, Tensor], Tensor]
TrainingStep = Callable[[nn.Module, Inputs, Tensor], Tensor]

_MODULES: dict[type[Any], tuple[Loss, tuple[str, ...]]] = {
    nn.CrossEntropyLoss: (functional.cross_entropy, ("weight", "ignore_index", "label_smoothing")),
    nn.NLLLoss: (functional.nll_loss, ("weight", "ignore_index")),
    nn.BCEWithLogitsLoss: (functional.binary_cross_entropy_with_logits, ("weight", "pos_weight")),
    nn.BCELoss: (functional.binary_cross_entropy, ("weight",)),
    nn.MSELoss: (functional.mse_loss, ()),
    nn.L1Loss: (functional.l1_loss, ()),
    nn.SmoothL1Loss: (functional.smooth_l1_loss, ("beta",)),
    nn.HuberLoss: (functional.huber_loss, ("delta",)),
}


def mean_squared_error(outputs: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
    """Mean squared error value by value: outputs (B, 1) against targets (B,) do not broadcast to (B, B).

    Args:
        outputs: Outputs (B, ...).
        targets: Targets of as many values.
        scale: Unit of the differences: with the targets' standard deviation losses are near 1, the size for
            which learning rates and the weights of regularisers are made.
    """
    rows = len(targets)
    outputs, targets = outputs.reshape(rows, -1), targets.reshape(rows, -1).to(outputs.dtype)
    return functional.mse_loss(outputs / scale, targets / scale)


def mean_absolute_error(outputs: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
    """Mean absolute error value by value; arguments as in ``mean_squared_error``."""
    rows = len(targets)
    outputs, targets = outputs.reshape(rows, -1), targets.reshape(rows, -1).to(outputs.dtype)
    return functional.l1_loss(outputs / scale, targets / scale)


def functional_form(loss: Loss) -> tuple[Loss, Mapping[str, Any]]:
    """The function that computes the loss, and its keyword arguments.

    Args:
        loss: ``torch.nn`` module with the mean as reduction, partial of a function, or any function.

    Example:
        >>> functional_form(nn.CrossEntropyLoss(label_smoothing=0.1))[0].__name__
        'cross_entropy'
    """
    known = _MODULES.get(type(loss))
    if known is not None and getattr(loss, "reduction", "mean") == "mean":
        function, names = known
        return function, {name: getattr(loss, name) for name in names}
    if isinstance(loss, functools.partial) and not loss.args:
        return loss.func, loss.keywords
    return loss, {}


def with_label_smoothing(loss: Loss, smoothing: float) -> Loss | None:
    """The loss with label smoothing where it is cross-entropy, else None.

    Args:
        loss: Loss in any of its forms.
        smoothing: Label smoothing; 0 keeps the loss's own.
    """
    function, options = functional_form(loss)
    if function is not functional.cross_entropy:
        return None
    return functools.partial(function, **{**options, "label_smoothing": smoothing}) if smoothing else loss
