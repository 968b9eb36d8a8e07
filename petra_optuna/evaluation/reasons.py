"""What libraries and the user's own functions raise becomes the trial's reason."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from petra_optuna.errors import TrialError, one_line

_FOREIGN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What torch, a metric or a user's loss raise on a model or batch that they cannot serve."""


@contextlib.contextmanager
def as_trial_error(kind: type[TrialError], what: str) -> Iterator[None]:
    """Raise ``kind`` with the reason in place of a foreign error in the block."""
    try:
        yield
    except _FOREIGN as error:
        raise kind(f"{what}: {type(error).__name__}: {one_line(error)}") from error
