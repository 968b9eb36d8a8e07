"""Opening the database of studies: any SQLAlchemy URL, with SQLite set up to be shared."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from petra_optuna.database.urls import (
    DEFAULT_URL,
    StorageLike,
    parse_url,
    shown_url,
    storage_url,
    without_secrets,
)
from petra_optuna.errors import StudyError, one_line
from petra_optuna.samplers import SharedStorage

_ELSEWHERE = Path("storage")
"""Folder of the files of studies whose database is a server."""
HEARTBEAT_S = 30
"""Pause between two signs of life of a running trial."""
_BUSY_TIMEOUT_S = 60
_CREATION_ATTEMPTS = 8
_CREATION_PAUSE_S = 0.25
_CREATED_MEANWHILE = ("already exists", "duplicate key", "UNIQUE constraint", "no such table")
"""Texts of the errors that the slower of two processes gets when both create the same tables."""


def open_storage(
    storage: StorageLike = DEFAULT_URL, *, must_exist: bool = False, read_only: bool = False
) -> RDBStorage:
    """Open a database of studies, creating it unless it must exist.

    SQLite is put into write-ahead logging with synchronous NORMAL: a third of the time per trial.

    Args:
        storage: SQLAlchemy URL, for example ``sqlite:///storage/study.db``, path of a SQLite file, or
            ``RDBStorage``.
        must_exist: Whether to refuse what is no database of studies yet, which is then left as it is.
        read_only: Whether nothing is going to be written; it must exist then. A SQLite file is opened so
            that it does not change, in a folder that cannot be written too.

    Raises:
        StudyError: When the URL cannot be read, the file is no database, or no server answers.

    Example:
        >>> storage = open_storage("sqlite:///storage/mine.db", must_exist=True)
        >>> load_study(storage).study_name
        'mine'
    """
    url = storage_url(storage)
    parsed = parse_url(url)
    on_sqlite = parsed.get_backend_name() == "sqlite"
    if on_sqlite:
        _check_sqlite(parsed, must_exist or read_only)
    if must_exist or read_only:
        _check_studies(parsed)
    if on_sqlite and not read_only:
        _prepare_sqlite(Path(str(parsed.database)))
    opened = _connect(parse_url(absolute_url(url)), _CREATION_ATTEMPTS, read_only)
    if on_sqlite and not read_only:
        sqlalchemy.event.listen(opened.engine, "connect", _relax_synchronous)
        sqlalchemy.event.listen(opened.engine, "before_execute", _lock_before_update)
        opened.engine.dispose()  # connections opened before the listener keep the slower setting
    return opened


def absolute_url(url: str) -> str:
    """A database's URL with the absolute path of a SQLite file: it stays right in another working folder.

    Raises:
        StudyError: When the URL cannot be read.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return url
    path = Path(str(parsed.database)).absolute()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)


def artifacts_folder(url: str) -> Path:
    """Folder of the artifacts of a database's studies: beside a SQLite file, else in ``storage/``."""
    return (sqlite_folder(url) or _ELSEWHERE) / "artifacts"


def cache_folder(url: str) -> Path:
    """Folder of cached models where no other is given: beside a SQLite file, else in ``storage/``."""
    return (sqlite_folder(url) or _ELSEWHERE) / "cache"


def sqlite_folder(url: str) -> Path | None:
    """Folder of a SQLite file, which holds all of its studies; None for another database."""
    parsed = parse_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)).parent if is_file else None


def _check_sqlite(parsed: sqlalchemy.URL, must_exist: bool) -> None:
    database = parsed.database
    if not database or database == ":memory:":
        raise StudyError(
            f"{shown_url(parsed)!r} names no file; a study must outlive its process, give sqlite:///FILE"
        )
    path = Path(database)
    if path.is_dir():
        raise StudyError(f"{path} is a folder, not a database file; give sqlite:///{path}/study.db")
    if must_exist and not path.is_file():
        raise StudyError(f"there is no database {path}; check `storage`, or start a study with `optimize`")


def _check_studies(parsed: sqlalchemy.URL) -> None:
    """Refuse a database without tables of Optuna, before Optuna makes them."""
    with _opening(parsed):
        engine = sqlalchemy.create_engine(parsed, **_engine_arguments(parsed, read_only=True))
        try:
            has_studies = sqlalchemy.inspect(engine).has_table("studies")
        finally:
            engine.dispose()
    if not has_studies:
        raise StudyError("the database holds no study; start one with `optimize`")


def _prepare_sqlite(path: Path) -> None:
    """Make a SQLite file, if there is none, that many processes can share."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection:
            _use_write_ahead_log(connection)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise StudyError(f"{path} cannot be used as a database ({error}); give another `storage`") from error
    except OSError as error:
        raise StudyError(f"{path} cannot be created ({error.strerror}); give another `storage`") from error


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Ask until SQLite agrees: where several change the mode at once, it refuses without its busy timeout."""
    end = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(_CREATION_PAUSE_S)


def _connect(parsed: sqlalchemy.URL, attempts: int, read_only: bool) -> RDBStorage:
    url = parsed.render_as_string(hide_password=False)
    try:
        with _opening(parsed), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return SharedStorage(
                url.replace("{", "{{").replace("}", "}}"),  # Optuna takes it for a template
                engine_kwargs=_engine_arguments(parsed, read_only),
                heartbeat_interval=HEARTBEAT_S,
                skip_table_creation=read_only,
            )
    except StudyError as error:
        if attempts == 1 or not any(words in str(error.__cause__) for words in _CREATED_MEANWHILE):
            raise
    time.sleep(_CREATION_PAUSE_S)
    return _connect(parsed, attempts - 1, read_only)


@contextlib.contextmanager
def _opening(parsed: sqlalchemy.URL) -> Iterator[None]:
    """Raise one line, without passwords, for a database that cannot be opened."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = without_secrets(one_line(error.__cause__ or error), parsed)
        told = f"{shown_url(parsed)} cannot be opened as a database of studies: {reason}"
        if parsed.get_backend_name() == "sqlite":
            told = f"{parsed.database} cannot be used as a database ({reason}); give another `storage`"
        raise StudyError(told) from error


def _engine_arguments(parsed: sqlalchemy.URL, read_only: bool) -> dict[str, Any]:
    if parsed.get_backend_name() != "sqlite":
        return {}
    if not read_only:
        return {"connect_args": {"timeout": _BUSY_TIMEOUT_S}}
    return {"creator": functools.partial(_connect_to_read, Path(str(parsed.database)).resolve())}


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection to a SQLite file that changes nothing in it.

    Whoever leaves a file in write-ahead logging last removes its log, and has to be allowed to. Where that is
    forbidden and there is no log, nobody is writing, and the file is read as one that cannot change.
    """
    may_write = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    is_logged = path.with_name(f"{path.name}-wal").exists()
    mode = "rw" if may_write else "ro" if is_logged else "ro&immutable=1"
    uri = f"file:{urllib.parse.quote(str(path))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _lock_before_update(connection: sqlalchemy.Connection, statement: Any, *_: object) -> None:
    """Take SQLite's write lock where Optuna says SELECT FOR UPDATE, which SQLite does not know.

    Without it two processes read the same trial as waiting, and both run it (optuna #4002).
    """
    if getattr(statement, "_for_update_arg", None) is None:
        return
    if not connection.connection.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _relax_synchronous(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
