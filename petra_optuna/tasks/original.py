"""The model that a task keeps: a private copy in float32 on the CPU that returns one tensor."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from petra_optuna.errors import TaskError, foreign_errors_as
from petra_optuna.nn.batch_norm import fixed_norms
from petra_optuna.nn.copying import private_copy, store_hooked_weights
from petra_optuna.nn.inputs import Inputs, call, mapped, tensors
from petra_optuna.nn.normalize import Normalize
from petra_optuna.nn.outputs import (
    ChosenOutput,
    OutputChoice,
    all_tensors,
    choose,
    describe,
    main_output,
    training_form,
)
from petra_optuna.nn.randomness import seeded

logger = logging.getLogger(__name__)

CAST_TOLERANCE = 1e-2
"""Most by which outputs may differ after the cast to float32, as a share of the largest of them."""


@dataclasses.dataclass(frozen=True)
class Original:
    """A private copy of the user's model.

    Attributes:
        model: The copy, in evaluation mode.
        fixed_norms: Names of its norms whose statistics do not move (``nn.batch_norm.fixed_norms``).
        changed: Whether it is more than a copy of the user's model with a normalisation in front.
    """

    model: nn.Module
    fixed_norms: tuple[str, ...]
    changed: bool = False

    def __post_init__(self) -> None:
        """Put the model in evaluation mode."""
        self.model.eval()


def original_of(
    model: nn.Module,
    inputs: Inputs,
    *,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    output: OutputChoice | None = None,
    own_step: bool = False,
) -> Original:
    """Take a private copy of the user's model.

    ``DataParallel`` and ``torch.compile`` are taken off, old-style weight norms, spectral norms and pruning
    masks are folded into plain weights, other floating-point types become float32, and the log says so.

    Args:
        model: The user's model, in any mode; it is not changed.
        inputs: Inputs of two samples or more, in float32.
        normalize: Mean and standard deviation of each channel, put in front.
        output: The user's choice among several outputs.
        own_step: Whether the task has a training step of its own, which calls the model as it likes.

    Raises:
        TaskError: When the model cannot be copied, does not run, or returns several tensors among which no
            choice follows.
    """
    private = _plain(model)
    others = sorted({str(tensor.dtype) for tensor in _floating(private)} - {"torch.float32"})
    if others:
        with torch.no_grad(), _checked_cast(private, inputs, normalize):
            private.float()
        logger.warning("the model's %s tensors are kept in float32", ", ".join(others))
    whole = _normalized(private, normalize)
    chosen = _chosen(whole, inputs, output, own_step)
    chosen.training = whole.training
    changed = chosen is not whole or _form(private) != _form(model)
    return Original(chosen, fixed_norms(chosen), changed)


def made_alike(
    model: nn.Module,
    normalize: tuple[Sequence[float], Sequence[float]] | None,
    kept: Original | None = None,
) -> nn.Module:
    """Another network of the user's model's structure, changed as its copy was.

    Args:
        model: The network.
        normalize: Mean and standard deviation of each channel, put in front.
        kept: The copy; None where it has no change but the normalisation.
    """
    if kept is None:
        return _normalized(model, normalize)
    network = _normalized(_plain(model).float(), normalize)
    if not isinstance(kept.model, ChosenOutput):
        return network
    return ChosenOutput(network, kept.model.output, kept.model.more_in_training)


def _plain(model: nn.Module) -> nn.Module:
    """A copy on the CPU without wrappers and old-style parametrisations."""
    if not isinstance(model, nn.Module):
        raise TaskError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled  # of torch.compile, whose own class takes long to import
        else:
            break
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TaskError(f"module {name!r} is scripted and cannot be changed; give the model unscripted")
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        if is_lazy(tensor):
            raise TaskError(f"{name!r} of a lazy module has no shape yet; run the model on a batch first")
        if tensor.is_meta:
            raise TaskError(f"{name!r} is on the meta device and has no values; load the weights first")
    with foreign_errors_as(TaskError, "the model cannot be copied"):
        private = private_copy(model)
    return _folded(private.cpu())


def _folded(model: nn.Module) -> nn.Module:
    """Make plain weights of old-style weight norms, spectral norms and pruning masks, in place."""
    for stored in store_hooked_weights(model):
        logger.warning("%s is folded into its weight", stored)
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            module.sparse = False  # the study's optimisers take dense gradients; the values are the same
    return model


def _normalized(model: nn.Module, normalize: tuple[Sequence[float], Sequence[float]] | None) -> nn.Module:
    if normalize is None:
        return model
    wrapped = nn.Sequential(Normalize(*normalize), model)
    wrapped.training = model.training
    return wrapped


def _form(model: nn.Module) -> tuple[str, list[tuple[str, torch.dtype]]]:
    """What wrappers, parametrisations and casts of a model change."""
    return repr(model), [(name, tensor.dtype) for name, tensor in model.state_dict().items()]


def _floating(model: nn.Module) -> Iterator[Tensor]:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            yield tensor


@contextmanager
def _checked_cast(
    model: nn.Module, inputs: Inputs, normalize: tuple[Sequence[float], Sequence[float]] | None
) -> Iterator[None]:
    """Check that the outputs are the same after a cast in the block.

    Only a double model is run: one of half precision may not run on a CPU, and float32 holds all its values.
    """
    dtype = next(_floating(model)).dtype
    if dtype != torch.float64:
        yield
        return
    wrapped = private_copy(_normalized(model, normalize)).double().eval()
    with foreign_errors_as(TaskError, "the model fails on a selection batch"):
        exact = all_tensors(call(wrapped, _cast(inputs, dtype)))
    yield
    wrapped = private_copy(_normalized(model, normalize)).eval()
    with foreign_errors_as(TaskError, "the model fails on a selection batch in float32"):
        single = all_tensors(call(wrapped, inputs))
    for name, values in exact.items():
        difference = float((single[name].double() - values).abs().max())
        if not difference <= CAST_TOLERANCE * float(values.abs().max()):
            raise TaskError(
                f"the model computes in {dtype}, and in float32 its output differs by {difference:.3g} from "
                f"values up to {float(values.abs().max()):.3g}; give a model that works in float32"
            )


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return mapped(inputs, cast)


def _chosen(model: nn.Module, inputs: Inputs, output: OutputChoice | None, own_step: bool) -> nn.Module:
    """The model, or one that returns a single tensor in both modes where it returns several."""
    private = private_copy(model).eval()
    evaluated = _evaluated(private, inputs)
    try:
        trained = _in_training(private, inputs)
    except TaskError:
        if not own_step:
            raise
        trained = evaluated  # the step calls it in a way of its own
    several = next((each for each in (evaluated, trained) if not isinstance(each, Tensor)), None)
    if output is None and several is None:
        return model
    if several is None and not callable(output):
        raise TaskError(f"`output` is {output!r}, but the model returns {describe(evaluated)}; leave it out")
    if output is None:
        output = main_output(several)
    if output is None and isinstance(evaluated, Tensor):
        output = _equal_output(private, inputs, evaluated)
    if output is None:
        mode = "" if several is evaluated else " in training mode"
        raise TaskError(
            f"the model returns {describe(several)}{mode}; give `output`, the name or index of the one to "
            "keep, or a function that makes one tensor of them"
        )
    with foreign_errors_as(TaskError, "`output` does not serve the model"):
        for outputs in (evaluated, trained):
            choose(outputs, output)
    return ChosenOutput(model, output, len(all_tensors(trained)) > len(all_tensors(evaluated)))


def _evaluated(model: nn.Module, inputs: Inputs) -> Any:
    """What the model returns.

    Raises:
        TaskError: When it fails, or changes its inputs in place so that another call gives something else.
    """
    given = mapped(inputs, Tensor.clone)
    with torch.no_grad(), foreign_errors_as(TaskError, "the model fails on a selection batch"):
        with seeded(0):
            evaluated = call(model, given)
        if not _close(tensors(given), tensors(inputs)):
            with seeded(0):
                again = call(model, given)
            if not _close(all_tensors(again).values(), all_tensors(evaluated).values()):
                raise TaskError(
                    "the model changes its inputs in place, so that a second call on them gives something "
                    "else; let `forward` work on a copy, for example of `x.clone()`"
                )
    return evaluated


def _close(some: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    return all(
        torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
        for one, other in zip(some, others, strict=True)
    )


def _in_training(model: nn.Module, inputs: Inputs) -> Any:
    """What the model returns in training mode, whose norms then move: only on a copy."""
    what = "the model fails in training mode (`training_step` may call it in a way of its own)"
    with torch.no_grad(), seeded(0), foreign_errors_as(TaskError, what):
        return call(private_copy(model).train(), inputs)


def _equal_output(model: nn.Module, inputs: Inputs, evaluated: Tensor) -> str | int | None:
    """The one output of training mode that has the values of evaluation mode; None where it is not one."""
    with torch.no_grad(), seeded(0), training_form(model):
        named = all_tensors(call(model, inputs))
    equal = [
        name
        for name, value in named.items()
        if value.shape == evaluated.shape and torch.allclose(value, evaluated, rtol=1e-4, atol=1e-6)
    ]
    return equal[0] if len(equal) == 1 else None
