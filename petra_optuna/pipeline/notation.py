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
    named = [_lookup(code.strip(), text, operations) for code in text.split("-")]
    conversions = [kind for kind in named if kind.kind == "conversion"]
    body = [kind for kind in named if kind.kind != "conversion"]
    legal = body + conversions[-1:]
    if legal != named:
        warnings.warn(
            f"{text}: a file has one conversion, the last; read as {write(kind.code for kind in legal)}",
            NotationWarning,
            stacklevel=3,
        )
    return legal


def imported_operations() -> tuple[type[Operation], ...]:
    """Every concrete operation class with a code that has been imported so far."""
    found: dict[type[Operation], None] = {}
    waiting = Operation.__subclasses__()
    while waiting:
        kind = waiting.pop(0)
        waiting.extend(kind.__subclasses__())
        if hasattr(kind, "code") and not inspect.isabstract(kind):
            found[kind] = None
    return tuple(found)


def _lookup(code: str, text: str, operations: Sequence[type[Operation]]) -> type[Operation]:
    matches = [kind for kind in operations if code in (kind.code, *kind.aliases)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in matches)
        raise PipelineError(f"code {code!r} in {text!r} names {names}; pass operations=")
    known = ", ".join(sorted({kind.code for kind in operations})) or "none, for no operation is imported"
    raise PipelineError(f"unknown code {code!r} in notation {text!r}; known: {known}")
