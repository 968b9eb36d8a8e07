"""Identities in the place of blocks, checked by value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from petra_optuna.errors import FOREIGN_ERRORS, one_line
from petra_optuna.nn.agreement import agree
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.surgery import replace_module
from petra_optuna.nn.time_limit import check_time


class PassThrough(nn.Identity):
    """Returns its first argument, whatever else it is called with: masks, for example."""

    def forward(self, input: Tensor, *_: object, **__: object) -> Tensor:
        """The first argument."""
        return input


def drop_blocks(
    model: nn.Module, names: Sequence[str], count: int, inputs: Inputs
) -> tuple[list[str], dict[str, str]]:
    """Replace the first ``count`` blocks that the model can do without by identities, in place.

    Without a block the model must compute what it computes where the block's output is its input. It does
    not where it relies on the block's class, its parts or a second reference to it.

    Args:
        model: Model in evaluation mode, private to the caller.
        names: Names of blocks in the order in which they go.
        count: Number of blocks to drop, where so many can be.
        inputs: Batch to compare on.

    Returns:
        The names of the dropped blocks, and the reason for each that could not be dropped, by name.
    """
    dropped: list[str] = []
    failed: dict[str, str] = {}
    for name in names:
        if len(dropped) == count:
            break
        check_time()
        block = model.get_submodule(name)
        reason = _drop(model, name, inputs)
        if reason is None:
            dropped.append(name)
        else:
            replace_module(model, name, block)
            failed[name] = reason
    return dropped, failed


@torch.no_grad()
def _drop(model: nn.Module, name: str, inputs: Inputs) -> str | None:
    """Replace a block by an identity; what is wrong with the model then, or None."""
    try:
        with _passing_on(model.get_submodule(name)):
            expected = forward(model, inputs)
        replace_module(model, name, PassThrough().eval())
        outputs = forward(model, inputs)
    except FOREIGN_ERRORS as error:
        return f"the model does not run without it ({one_line(error)})"
    return None if agree(outputs, expected) else "the model computes something else without it"


@contextlib.contextmanager
def _passing_on(block: nn.Module) -> Iterator[None]:
    """Let calls of a block return what it was given inside the block of code."""
    given: list[Tensor] = []  # copies: a block may change its input in place
    before = block.register_forward_pre_hook(lambda _, args: given.append(args[0].clone()))
    after = block.register_forward_hook(lambda *_: given.pop())
    try:
        yield
    finally:
        before.remove()
        after.remove()
