"""URLs of databases: read, compared and shown. What is shown holds no password, in whatever form it came."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from petra_optuna.errors import StudyError

DEFAULT_URL = "sqlite:///storage/study.db"
_MASK = "***"
_SECRET = re.compile("pass|pwd|secret|token|credential|odbc_connect", re.IGNORECASE)
"""Options of a URL's query whose values are not to be shown or stored."""


def parse_url(url: str) -> sqlalchemy.URL:
    """The parts of a SQLAlchemy URL.

    Raises:
        StudyError: When it cannot be read. The text repeats it only where no password can be in it.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        given = "what was given" if re.search("[@?=;]", url) else repr(url)
        raise StudyError(
            f"{given} is not a storage URL; give one like {DEFAULT_URL} or postgresql+psycopg://user@host/db"
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
