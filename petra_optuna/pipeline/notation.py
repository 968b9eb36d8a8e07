"""The paper's short form of a pipeline, ``LR-Reg-Pr-PTQ``, in both directions."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence

from petra_optuna.errors import PipelineError
from petra_optuna.pipeline.operation import Operation

EMPTY = "original"


class NotationWarning(UserWarning):
    """A notation was read as another pipeline than it spells; the text says which."""


def write(codes: Iterable[str]) -> str:
    """Join codes; ``original`` for none."""
    return "-".join(codes) or EMPTY


def read(text: str, operations: Sequence[type[Operation]]) -> list[type[Operation]]:
    """The classes that a notation names, in legal order.

    Raises:
        PipelineError: When a code is unknown or names two classes.
    """
    if text.strip() == EMPTY:
        return []
    named = [_find(code.strip(), text, operations) for code in text.split("-")]
    conversions = [operation for operation in named if operation.kind == "conversion"]
    body = [operation for operation in named if operation.kind != "conversion"]
    legal = body + conversions[-1:]
    if legal != named:
        codes = write(operation.code for operation in legal)
        warnings.warn(
            f"{text}: a file has one conversion, the last; read as {codes}",
            NotationWarning,
            stacklevel=3,
        )
    return legal


def imported_operations() -> tuple[type[Operation], ...]:
    """Every concrete operation class with a code that has been imported so far."""
    concrete: dict[type[Operation], None] = {}
    waiting = Operation.__subclasses__()
    while waiting:
        operation = waiting.pop(0)
        waiting.extend(operation.__subclasses__())
        if hasattr(operation, "code") and not inspect.isabstract(operation):
            concrete[operation] = None
    return tuple(concrete)


def _find(code: str, text: str, operations: Sequence[type[Operation]]) -> type[Operation]:
    matches = [operation for operation in operations if code in (operation.code, *operation.aliases)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(f"{match.__module__}.{match.__qualname__}" for match in matches)
        raise PipelineError(f"code {code!r} in {text!r} names {names}; give `operations`")
    codes = sorted({operation.code for operation in operations})
    listed = ", ".join(codes) or "none, for no operation is imported"
    raise PipelineError(f"unknown code {code!r} in notation {text!r}; known: {listed}")
