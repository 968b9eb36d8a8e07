from __future__ import annotations

import re

import pytest

from petra_optuna.database import location_of, open_storage, parse_url, shown_url
from petra_optuna.errors import StudyError

SECRET = "s3cr3t"
WITH_SECRET = [
    f"postgresql+psycopg://me:{SECRET}@host:5432/db",
    f"postgresql+psycopg://host/db?user=me&password={SECRET}",
    f"postgresql+psycopg://host/db?sslpassword={SECRET}&sslmode=require",
    f"mysql+pymysql://host/db?passwd={SECRET}",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dme%3BPWD%3D{SECRET}",
    f"postgresql+psycopg://host/db?options=-c%20x&access_token={SECRET}",
]
MALFORMED = [
    f"postgresql://me:{SECRET}@host:port/db",
    f"postgresql//me:{SECRET}@host/db",
    f"me:{SECRET}@host/db",
    f"host/db?password={SECRET}",
    f"host=db;password={SECRET}",
]


@pytest.mark.parametrize("url", WITH_SECRET)
def test_what_is_shown_and_what_is_stored_of_a_url_hold_no_password(url: str) -> None:
    shown = shown_url(parse_url(url))
    assert SECRET not in shown
    assert "***" in shown
    assert SECRET not in location_of(url)
    assert location_of(url) == location_of(url.replace(SECRET, "another"))


def test_a_url_without_a_password_is_shown_as_it_was_given() -> None:
    for url in ("sqlite:///storage/study.db", "postgresql+psycopg://me@/db?host=%2Frun%2Fsocket"):
        assert shown_url(parse_url(url)) == url


@pytest.mark.parametrize("url", MALFORMED)
def test_a_url_that_cannot_be_read_is_not_repeated_where_it_may_hold_a_password(url: str) -> None:
    with pytest.raises(StudyError, match="is not a storage URL") as refused:
        parse_url(url)
    assert SECRET not in str(refused.value)
    with pytest.raises(StudyError, match=re.escape("'storage/study.log' is not a storage URL")):
        parse_url("storage/study.log")


@pytest.mark.parametrize("url", [url for url in WITH_SECRET if url.startswith("postgresql")])
@pytest.mark.parametrize("must_exist", [False, True])
def test_a_server_that_does_not_answer_is_told_without_the_password(url: str, must_exist: bool) -> None:
    with pytest.raises(StudyError, match="cannot be opened") as refused:
        open_storage(url.replace("host", "127.0.0.1").replace("5432", "1"), must_exist=must_exist)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
