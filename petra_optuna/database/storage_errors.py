"""Databases that fail in the middle of the work, told in one line."""

from __future__ import annotations

from types import TracebackType

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, OperationalError

from petra_optuna.errors import PetraError, StudyError, chain_of, one_line

_LOST = (StorageInternalError, OperationalError)
_DAMAGED = ("malformed", "not a database", "no such table", "no such column", "does not exist")
"""Texts of a database whose file is there, but not whole."""


class one_line_storage_errors:  # noqa: N801  # a context manager, named as those of contextlib are
    """Raise one line for a database that cannot be used, for example because its disk is full.

    Optuna hides such an error: while it is on its way, Optuna fails an assertion or reads a variable that was
    never set. So the whole chain of errors is searched.

    Raises on exit:
        StudyError: When an error that is not of ours came from the database.
    """

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Replace the error, if the database is its cause."""
        if not isinstance(error, Exception) or isinstance(error, PetraError):
            return
        lost = next((link for link in chain_of(error) if isinstance(link, _LOST)), None)
        if lost is not None:
            raise StudyError(_told(lost)) from error


def _told(lost: BaseException) -> str:
    cause = lost.__cause__ or lost
    reason = one_line(cause.orig if isinstance(cause, DBAPIError) and cause.orig else cause)
    if any(words in reason for words in _DAMAGED):
        return f"the database is damaged ({reason}); restore a copy of it"
    return f"the database cannot be used ({reason}); make room or start its server, then run this again"
