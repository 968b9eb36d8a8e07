"""Which task a command works on, and the command that lists them."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path

from rich.text import Text

from petra_optuna.cli.console import make_console
from petra_optuna.errors import FOREIGN_ERRORS, TaskError, one_line
from petra_optuna.study import Specification, TaskSource
from petra_optuna.tasks import TASKS, Task, build_task


def tasks() -> None:
    """List the built-in tasks.

    Example: petra tasks
    """
    console = make_console()
    for name, entry in sorted(TASKS.items()):
        console.print(Text(name, "bold"), f" {(entry.__doc__ or '').strip().splitlines()[0]}")
    console.print("Your own: petra run module:callable, where callable() returns a petra_optuna.Task.")


def task_of(source: TaskSource, cache: Path) -> Task:
    """Build the task that a source names.

    Raises:
        TaskError: When the name is neither built in nor an importable ``module:callable``.
        DataError: When its data are missing or of the wrong layout.
    """
    if ":" in source.name:
        if source.data_root or source.checkpoint:
            raise TaskError(f"{source.name} makes its own task; --data-root and --checkpoint are not for it")
        return _imported(source.name)
    return build_task(
        source.name,
        data_root=Path(source.data_root) if source.data_root else None,
        checkpoint=Path(source.checkpoint) if source.checkpoint else None,
        cache_dir=cache,
    )


def stored_task(
    specification: Specification,
    given: str | None,
    data_root: Path | None,
    checkpoint: Path | None,
    cache: Path | None,
) -> Task:
    """The task of a stored study, built of ``stored_source``.

    Args:
        specification: Specification of the study.
        given: ``module:callable`` of a task that is not built in.
        data_root: Where the data is now, if it was moved.
        checkpoint: Where the original's weights are now, if they were moved.
        cache: Folder of cached models; that of the study when None.
    """
    source = stored_source(specification, given, data_root, checkpoint)
    return task_of(source, cache or Path(specification.cache))


def stored_source(
    specification: Specification, given: str | None, data_root: Path | None, checkpoint: Path | None
) -> TaskSource:
    """How the task of a stored study is built. Nothing that the database names is imported.

    Args:
        specification: Specification of the study.
        given: ``module:callable`` of a task that is not built in.
        data_root: Where the data is now, if it was moved.
        checkpoint: Where the original's weights are now, if they were moved.

    Raises:
        TaskError: When the study's task is the user's own and was not given again.
    """
    stored = specification.task
    if given is None and stored.name not in TASKS:
        raise TaskError(
            f"the study's task {stored.name!r} is not built in; give it again with --task module:callable"
        )
    moved = TaskSource.of(given or stored.name, data_root, checkpoint)
    return TaskSource(moved.name, moved.data_root or stored.data_root, moved.checkpoint or stored.checkpoint)


def _imported(name: str) -> Task:
    """The task that the user's own code makes."""
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        make = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, SyntaxError, *FOREIGN_ERRORS) as error:
        raise TaskError(f"{name!r} cannot be imported as module:callable ({_told(error)})") from error
    if not callable(make):
        raise TaskError(f"{name} is no function but a {type(make).__name__}; name one that returns a task")
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError) as error:
        raise TaskError(f"{name} must be callable without arguments: {error}") from error
    try:
        made = make()
    except (OSError, *FOREIGN_ERRORS) as error:
        raise TaskError(f"{name}() fails: {_told(error)}") from error
    if not isinstance(made, Task):
        raise TaskError(f"{name} returned {type(made).__name__}, not a petra_optuna.Task")
    return made


def _told(error: BaseException) -> str:
    """The error in one line, and the place in the user's code that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    is_code_of_theirs = place.filename != __file__ and not place.filename.startswith("<")
    where = f", raised in {place.filename}:{place.lineno}" if is_code_of_theirs else ""
    return f"{type(error).__name__}: {one_line(error)}{where}"
