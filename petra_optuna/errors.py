"""Everything that petra_optuna raises on purpose.

::

    PetraError
    ├── UserError               what the user gave cannot be used: one line, exit code 2
    │   ├── DataError           a folder, file or data set is missing, empty or of the wrong layout
    │   ├── PipelineError       a pipeline, node, field or notation breaks a rule
    │   ├── StudyError          a database, study or trial is missing or disagrees with what was asked
    │   └── TaskError           a task, its model, metric or batches cannot be used
    └── TrialError              one trial fails with this reason; the study goes on
        ├── OperationFailed     an operation could not do its work
        ├── TrainingDiverged    the loss became NaN or infinite, or grew and did not come back
        ├── LoweringFailed      the model did not become a correct file
        ├── RuntimeFailed       a runtime cannot load the file or run it
        ├── MeasurementFailed   the file crashed, hung or could not be measured
        └── SealedSplitRead     something read the test split in a search, or twice in a confirmation
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PetraError(Exception):
    """Root of the tree."""


class UserError(PetraError):
    """What the user gave cannot be used. The text says what, where and what to do, in one line."""


class DataError(UserError):
    """A folder, file or data set is missing, empty or of the wrong layout."""


class PipelineError(UserError):
    """A pipeline, node, field or notation breaks a rule."""


class StudyError(UserError):
    """A database, study or trial is missing or disagrees with what was asked."""


class TaskError(UserError):
    """A task, its model, metric or batches cannot be used."""


class TrialError(PetraError):
    """One trial fails with this reason; the study goes on."""


class OperationFailed(TrialError):
    """An operation could not do its work; it never returns its input instead."""


class TrainingDiverged(TrialError):
    """The training loss became NaN or infinite, or grew and did not come back."""


class LoweringFailed(TrialError):
    """The model did not become a file that computes what the model computes, as it was asked to."""


class RuntimeFailed(TrialError):
    """A runtime cannot load the file or run it on these inputs."""


class MeasurementFailed(TrialError):
    """The file crashed, hung or could not be measured."""


class SealedSplitRead(TrialError):
    """Something read the test split in a search, or twice in a confirmation."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's text that says something, shortened to ``limit`` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


FOREIGN_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError),
    *(BufferError, EOFError, TypeError, ValueError),
)
"""What torch, another library or a user's function raises on a model, value or batch it cannot serve."""


@contextmanager
def foreign_errors_as(kind: type[PetraError], what: str) -> Iterator[None]:
    """Raise ``kind`` in place of a foreign error in the block: ``WHAT: TYPE: first line of its text``.

    Args:
        kind: Error to raise; the foreign one is its cause.
        what: Beginning of the text: what failed.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise kind(f"{what}: {type(error).__name__}: {one_line(error)}") from error


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it came from, hidden ones included."""
    left, seen = [error], set[int]()
    while left:
        link = left.pop()
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            left += [origin for origin in (link.__context__, link.__cause__) if origin is not None]
