"""Outputs of a model that returns several: one is chosen, and whatever compares models sees that one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from petra_optuna.nn.inputs import Inputs, call

OutputChoice = str | int | Callable[[Any], Tensor]
"""Name or index of an output, or a function from all that the model returns to one tensor."""

PREFERRED = ("logits", "out")
"""Names of the main output in Hugging Face's and torchvision's models."""


class ChosenOutput(nn.Module):
    """A model that returns one of its outputs.

    Args:
        model: Model that returns several tensors, always or in training mode.
        output: Choice among them. A name or an index leaves a single tensor as it is, so that a model which
            returns more in training mode gives its main output in both.
        more_in_training: Whether the model returns more in training mode than in evaluation mode.
    """

    def __init__(self, model: nn.Module, output: OutputChoice, more_in_training: bool = False) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.more_in_training = more_in_training

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The chosen output.

        Raises:
            TypeError: When the model does not return it.
        """
        return choose(self.model(*args, **kwargs), self.output)


def own_model(model: nn.Module) -> nn.Module:
    """The model that returns all of its outputs, as its author wrote it."""
    return model.model if isinstance(model, ChosenOutput) else model


def whole_outputs(model: nn.Module, inputs: Inputs) -> Any:
    """All that a model in evaluation mode returns, what it returns in training mode alone included.

    What reads a channel of the model is among the parts that were called then.
    """
    if not (isinstance(model, ChosenOutput) and model.more_in_training):
        return call(own_model(model), inputs)
    with training_form(model.model):
        return call(model.model, inputs)


@contextmanager
def training_form(model: nn.Module) -> Iterator[None]:
    """Put a model in training mode inside the block, but not layers without parts: no dropout acts."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = module is model or any(True for _ in module.children())
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def choose(outputs: Any, output: OutputChoice) -> Tensor:
    """One tensor of all that a model returned.

    Raises:
        TypeError: When there is no such tensor; the text says what there is.
    """
    chosen: Any
    if callable(output):
        chosen = output(outputs)
    elif isinstance(outputs, Tensor):
        return outputs
    else:
        named = named_outputs(outputs)
        chosen = named.get(output)
        if isinstance(output, int) and chosen is None:
            chosen = dict(enumerate(named.values())).get(output)
        if chosen is None and isinstance(output, str):
            chosen = getattr(outputs, output, None)
    if not isinstance(chosen, Tensor):
        raise TypeError(f"there is no output {output!r} in {describe(outputs)}")
    return chosen


def named_outputs(outputs: Any) -> dict[str | int, Tensor]:
    """The tensors of a mapping, a dataclass, a named tuple, a tuple or a list, by name or index."""
    if isinstance(outputs, Mapping):
        parts: dict[str | int, Any] = dict(outputs)
    elif dataclasses.is_dataclass(outputs):
        parts = {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        parts = dict(zip(outputs._fields, outputs, strict=True))
    elif isinstance(outputs, tuple | list):
        parts = dict(enumerate(outputs))
    else:
        parts = {}
    return {name: part for name, part in parts.items() if isinstance(part, Tensor)}


def main_output(outputs: Any) -> str | int | None:
    """Name or index of the only tensor, or of the one with a preferred name; None where there is neither."""
    named = named_outputs(outputs)
    if len(named) == 1:
        return next(iter(named))
    return next((name for name in PREFERRED if name in named), None)


def all_tensors(outputs: Any) -> dict[str | int, Tensor]:
    """The tensors that a model returned by name or index; one alone has index 0."""
    return {0: outputs} if isinstance(outputs, Tensor) else named_outputs(outputs)


def describe(outputs: Any) -> str:
    """What a model returned, in one line: ``a tuple of 0: (8, 4), 1: (8, 3)``."""
    if isinstance(outputs, Tensor):
        return f"one tensor {tuple(outputs.shape)}"
    parts = ", ".join(f"{name}: {tuple(part.shape)}" for name, part in named_outputs(outputs).items())
    return f"{type(outputs).__name__} of {parts or 'no tensors'}"
