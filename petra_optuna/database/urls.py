"""URLs of databases: read, compared and shown. What is shown holds no password, in whatever form it came."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import sqlalchemy
from optuna.storages import BaseStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from petra_optuna.errors import StudyError
from petra_optuna.samplers import relational_storage

DEFAULT_URL = "sqlite:///storage/study.db"
StorageLike = str | Path | BaseStorage
"""Where studies are: an SQLAlchemy URL, a SQLite file, or a relational storage of Optuna."""
_SQLITE_FILES = (".db", ".sqlite", ".sqlite3")
_MASK = "***"
_SECRET = re.compile("pass|pwd|secret|token|credential|odbc_connect", re.IGNORECASE)
"""Options of a URL's query whose values are not to be shown or stored."""


def storage_url(storage: StorageLike, argument: str = "storage") -> str:
    """The URL of a database that was given in any of these forms.

    Args:
        storage: A URL, the path of a SQLite file, or a ``RDBStorage``, which is opened anew by its URL.
        argument: Name of the argument, for the error's text.

    Raises:
        StudyError: When it is something else, a storage that is no relational database for example.

    Example:
        >>> storage_url(Path("mine.db"))
        'sqlite:///mine.db'
    """
    if isinstance(storage, Path):
        return f"sqlite:///{storage}"
    if isinstance(storage, str):
        return parse_url(storage).render_as_string(hide_password=False)
    backend = relational_storage(storage) if isinstance(storage, BaseStorage) else None
    if backend is None:
        given = "None" if storage is None else f"a {type(storage).__name__}"
        raise StudyError(
            f"`{argument}` must be a relational database that other processes can open, given by its URL, as "
            f"the path of a SQLite file or as a RDBStorage; got {given}"
        )
    return backend.url


def parse_url(url: str) -> sqlalchemy.URL:
    """The parts of a SQLAlchemy URL, or of that of a SQLite file that is named as ``study.db`` is.

    Raises:
        StudyError: When it cannot be read. The text repeats it only where no password can be in it.
    """
    if not re.search("[:@?=;]", url) and url.endswith(_SQLITE_FILES):
        return sqlalchemy.URL.create("sqlite", database=url)
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        given = "what was given" if re.search("[@?=;]", url) else repr(url)
        raise StudyError(
            f"{given} is not a storage URL; give one like {DEFAULT_URL} or "
            "postgresql+psycopg://user@host/db, or a SQLite file like study.db"
        ) from error


def shown_url(parsed: sqlalchemy.URL) -> str:
    """The URL for a person to read: the password, and options that may hold one, are masked."""
    query = {key: _MASK if _SECRET.search(key) else value for key, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True).replace(quote_plus(_MASK), _MASK)


def location_of(url: str) -> str:
    """A database's URL without passwords, with the absolute path of a SQLite file: equal for equal databases.

    Raises:
        StudyError: When the URL cannot be read.
    """
    parsed = parse_url(url)
    database = parsed.database
    if parsed.get_backend_name() == "sqlite" and database:
        database = str(Path(database).resolve())
    query = {key: value for key, value in parsed.query.items() if not _SECRET.search(key)}
    bare = sqlalchemy.URL.create(
        parsed.drivername, parsed.username, None, parsed.host, parsed.port, database, query
    )
    return bare.render_as_string(hide_password=False)


def without_secrets(text: str, parsed: sqlalchemy.URL) -> str:
    """A text, an error of a driver for example, in which no password of the URL is left."""
    for secret in _secrets(parsed):
        text = text.replace(secret, _MASK)
    return text


def _secrets(parsed: sqlalchemy.URL) -> Iterator[str]:
    if parsed.password:
        yield str(parsed.password)
    for key, value in parsed.normalized_query.items():
        if _SECRET.search(key):
            yield from (one for one in value if one)
