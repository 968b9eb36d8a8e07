"""Opening the database of studies: any SQLAlchemy URL, with SQLite set up to be shared."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from petra_optuna.errors import StudyError, one_line
from petra_optuna.samplers import SharedStorage

DEFAULT_URL = "sqlite:///storage/study.db"
HEARTBEAT_S = 30
"""Pause between two signs of life of a running trial."""
_BUSY_TIMEOUT_S = 60
_CREATION_ATTEMPTS = 8
_CREATION_PAUSE_S = 0.25
_CREATED_MEANWHILE = ("already exists", "duplicate key", "UNIQUE constraint", "no such table")
"""Texts of the errors that the slower of two processes gets when both create the same tables."""


def open_storage(url: str = DEFAULT_URL, *, must_exist: bool = False) -> RDBStorage:
    """Open a database of studies, creating it unless it must exist.

    SQLite is put into write-ahead logging with synchronous NORMAL: a third of the time per trial.

    Args:
        url: SQLAlchemy URL, for example ``sqlite:///storage/study.db``.
        must_exist: Refuse to create a new SQLite file.

    Raises:
        StudyError: When the URL cannot be read, the file is no database, or no server answers.

    Example:
        >>> storage = open_storage("sqlite:///storage/mine.db", must_exist=True)
        >>> load_study(storage).study_name
        'mine'
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        _prepare_sqlite(url, parsed.database, must_exist)
    storage = _connect(_parsed(absolute_url(url)), _CREATION_ATTEMPTS)
    if parsed.get_backend_name() == "sqlite":
        sqlalchemy.event.listen(storage.engine, "connect", _relax_synchronous)
        sqlalchemy.event.listen(storage.engine, "before_execute", _lock_before_update)
        storage.engine.dispose()  # connections opened before the listener keep the slower setting
    return storage


def absolute_url(url: str) -> str:
    """A database's URL with the absolute path of a SQLite file: it stays right in another working folder.

    Raises:
        StudyError: When the URL cannot be read.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return url
    path = Path(str(parsed.database)).absolute()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)


def location_of(url: str) -> str:
    """A database's URL without passwords, with the absolute path of a SQLite file: equal for equal databases.

    Raises:
        StudyError: When the URL cannot be read.
    """
    parsed = _parsed(url)
    database = parsed.database
    if parsed.get_backend_name() == "sqlite" and database:
        database = str(Path(database).resolve())
    query = {key: value for key, value in parsed.query.items() if "password" not in key}
    bare = sqlalchemy.URL.create(
        parsed.drivername, parsed.username, None, parsed.host, parsed.port, database, query
    )
    return bare.render_as_string(hide_password=False)


def artifacts_folder(url: str) -> Path:
    """Folder of the artifacts of a database's studies: beside a SQLite file, else in ``storage/``."""
    parsed = make_url(url)
    beside = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return (Path(str(parsed.database)).parent if beside else Path("storage")) / "artifacts"


@contextlib.contextmanager
def one_line_storage_errors() -> Iterator[None]:
    """Raise one line for a database that cannot be written, for example because its disk is full.

    Optuna hides such an error: it fails an assertion of its own while the error is on its way.
    """
    try:
        yield
    except (StorageInternalError, AssertionError) as error:
        hidden = error if isinstance(error, StorageInternalError) else error.__context__
        if not isinstance(hidden, StorageInternalError):
            raise
        raise StudyError(
            f"the database cannot be written ({one_line(hidden.__cause__ or hidden)}); "
            "make room or start its server, then `resume`"
        ) from hidden


def _parsed(url: str) -> sqlalchemy.URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise StudyError(
            f"{url!r} is not a storage URL; give one like {DEFAULT_URL} or postgresql+psycopg://user@host/db"
        ) from error


def _prepare_sqlite(url: str, database: str | None, must_exist: bool) -> None:
    if not database or database == ":memory:":
        raise StudyError(f"{url!r} names no file; a study must outlive its process, give sqlite:///FILE")
    path = Path(database)
    if must_exist and not path.is_file():
        raise StudyError(f"there is no database {path}; check `storage`, or start a study with `optimize`")
    if path.is_dir():
        raise StudyError(f"{path} is a folder, not a database file; give sqlite:///{path}/study.db")
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


def _connect(parsed: sqlalchemy.URL, attempts: int) -> RDBStorage:
    url = parsed.render_as_string(hide_password=False)
    template = url.replace("{", "{{").replace("}", "}}")  # RDBStorage takes its URL for one
    arguments: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        arguments["connect_args"] = {"timeout": _BUSY_TIMEOUT_S}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return SharedStorage(template, engine_kwargs=arguments, heartbeat_interval=HEARTBEAT_S)
    except (DatabaseError, NoSuchModuleError, ImportError, RuntimeError) as error:
        if attempts > 1 and any(words in str(error) for words in _CREATED_MEANWHILE):
            time.sleep(_CREATION_PAUSE_S)
            return _connect(parsed, attempts - 1)
        where = parsed.render_as_string(hide_password=True)
        raise StudyError(f"{where} cannot be opened as a database of studies: {one_line(error)}") from error


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
