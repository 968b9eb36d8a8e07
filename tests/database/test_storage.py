from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from support.postgres import new_database

from petra_optuna.database import absolute_url, artifacts_folder, open_storage, storage_url
from petra_optuna.database import storage as storage_module
from petra_optuna.errors import StudyError
from petra_optuna.samplers import database_url
from petra_optuna.study import load_study


def test_sqlite_is_shared_by_many_writers(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/new/folder/study.db")
    with storage.engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar() == 1  # NORMAL


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_new_database_may_be_opened_by_several_at_once(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    if database == "postgresql":
        url = new_database(request.getfixturevalue("postgres_url"), "opened_at_once")
    openers = 6
    start = threading.Barrier(openers)

    def open_together(number: int) -> list[str]:
        start.wait()
        return optuna.get_all_study_names(open_storage(url))

    with ThreadPoolExecutor(openers) as pool:
        assert list(pool.map(open_together, range(openers))) == [[]] * openers


@pytest.mark.parametrize(("code", "asked"), [(sqlite3.SQLITE_BUSY, 3), (sqlite3.SQLITE_IOERR, 1)])
def test_a_journal_mode_that_others_change_too_is_asked_for_again(
    code: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy:
        calls = 0

        def execute(self, _statement: str) -> None:
            self.calls += 1
            if self.calls < 3:
                error = sqlite3.OperationalError("refused")
                error.sqlite_errorcode = code
                raise error

    monkeypatch.setattr(time, "sleep", lambda _: None)
    connection = Busy()
    with contextlib.suppress(sqlite3.OperationalError):
        storage_module._use_write_ahead_log(cast(sqlite3.Connection, connection))
    assert connection.calls == asked


def test_a_database_may_be_given_as_optuna_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    optuna.create_study(storage=open_storage("study.db"), study_name="mine")
    same = RDBStorage("sqlite:///study.db")
    loaded = optuna.load_study(storage=same, study_name="mine")
    behind_cache = loaded._storage
    for given in ("sqlite:///study.db", Path("study.db"), tmp_path / "study.db", same, behind_cache):
        assert load_study(open_storage(given, must_exist=True)).study_name == "mine"
        assert artifacts_folder(storage_url(given)).absolute() == tmp_path / "artifacts"


def test_a_storage_that_other_processes_cannot_open_is_refused_in_one_line(tmp_path: Path) -> None:
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "log")))
    others = {"JournalStorage": journal, "InMemoryStorage": InMemoryStorage(), "None": None, "int": 3}
    for name, storage in others.items():
        with pytest.raises(StudyError, match=rf"`storage` must be a relational database .* got (a )?{name}"):
            open_storage(storage)  # type: ignore[arg-type]


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"these are my notes, " * 100)
    with pytest.raises(StudyError, match=r"notes\.db cannot be used as a database"):
        open_storage(f"sqlite:///{path}")
    assert path.read_bytes() == b"these are my notes, " * 100


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("storage/study.log", "is not a storage URL"),
        ("sqlite://", "names no file"),
        ("nosuch://host/db", "cannot be opened"),
    ],
)
def test_a_url_that_cannot_serve_is_refused(url: str, reason: str) -> None:
    with pytest.raises(StudyError, match=reason):
        open_storage(url)


def test_a_missing_database_is_not_created_by_reading(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no database"):
        open_storage(f"sqlite:///{tmp_path}/typo.db", must_exist=True)
    assert not (tmp_path / "typo.db").exists()


@pytest.mark.parametrize("how", ["must_exist", "read_only"])
def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path, how: str) -> None:
    path = tmp_path / "theirs.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    with pytest.raises(StudyError, match="holds no study"):
        open_storage(f"sqlite:///{path}", **{how: True})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["theirs.db"]


@pytest.mark.parametrize("others", ["none", "a writer", "no right to write"])
def test_reading_changes_nothing(tmp_path: Path, others: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.db"
    writer = open_storage(f"sqlite:///{path}")
    made = optuna.create_study(storage=writer, study_name="mine")
    made.add_trial(optuna.trial.create_trial(value=1.0))
    if others != "a writer":
        writer.remove_session()
        writer.engine.dispose()
    if others == "no right to write":
        monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    before = _contents(tmp_path)
    assert ("study.db-wal" in before) == (others == "a writer")
    storage = open_storage(f"sqlite:///{path}", read_only=True)
    study = load_study(storage, "mine")
    assert [trial.value for trial in study.trials] == [1.0]
    with pytest.raises(StorageInternalError):
        study.set_user_attr("note", "mine")
    storage.remove_session()
    storage.engine.dispose()
    assert _contents(tmp_path) == before


def _contents(folder: Path) -> dict[str, bytes]:
    """Files by name; the memory that those who have a database open share changes with each of them."""
    return {path.name: b"" if path.name.endswith("-shm") else path.read_bytes() for path in folder.iterdir()}


def test_a_path_with_braces_is_no_template(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/{{old}}/study.db")
    optuna.create_study(storage=storage, study_name="mine")
    assert (tmp_path / "{old}" / "study.db").is_file()
    assert artifacts_folder(storage.url) == tmp_path / "{old}" / "artifacts"


def test_a_heartbeat_that_fails_ends_no_thread(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE trial_heartbeats"))
    storage.record_heartbeat(0)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is a folder"):
        open_storage(f"sqlite:///{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="cannot be"):
        open_storage(f"sqlite:///{tmp_path}/study.db")


def test_artifacts_live_beside_a_sqlite_file() -> None:
    assert artifacts_folder("sqlite:////data/x/study.db") == Path("/data/x/artifacts")
    assert artifacts_folder("postgresql+psycopg://user@host/db") == Path("storage/artifacts")


def test_a_relative_path_stays_right_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(storage=open_storage("sqlite:///storage/{a}.db"), study_name="one")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    study.set_user_attr("written", "here")
    url = database_url(study)
    assert url is not None
    assert make_url(url).database == f"{tmp_path}/storage/{{a}}.db"
    assert artifacts_folder(url) == tmp_path / "storage" / "artifacts"
    assert load_study(open_storage(url)).user_attrs == {"written": "here"}
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "postgresql+psycopg://me:secret@host/db"])
def test_only_a_file_has_an_absolute_path(url: str) -> None:
    assert absolute_url(url) == url


def test_a_study_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(StudyError, match="it holds no study"):
        load_study(storage, "a")
    optuna.create_study(storage=storage, study_name="one")
    assert load_study(storage).study_name == "one"
    optuna.create_study(storage=storage, study_name="two")
    with pytest.raises(StudyError, match="one, two"):
        load_study(storage)
    with pytest.raises(StudyError, match="there is no study 'three'"):
        load_study(storage, "three")


def test_a_study_with_a_damaged_attribute_is_one_line(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    optuna.create_study(storage=storage, study_name="mine").set_user_attr("note", 1)
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE study_user_attributes SET value_json = '{broken'"))
    with pytest.raises(StudyError, match="the database is damaged, restore a copy of it"):
        load_study(storage, "mine")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_waiting_trial_goes_to_one_of_two_that_want_it(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    if database == "postgresql":
        url = new_database(request.getfixturevalue("postgres_url"), "wanted_twice")
    first, second = open_storage(url), open_storage(url)
    waiting = optuna.create_study(storage=first, study_name="queue")
    waiting.enqueue_trial({})
    other = optuna.load_study(storage=second, study_name="queue")
    taken: list[int | None] = []
    rival = threading.Thread(target=lambda: taken.append(other._pop_waiting_trial_id()))

    def overtake(connection: object, cursor: object, statement: str, *_: object) -> None:
        """Let the rival go between the look at the trial and the change of its state."""
        if statement.startswith("UPDATE trials") and not rival.ident:
            rival.start()
            rival.join(0.5)

    sqlalchemy.event.listen(first.engine, "before_cursor_execute", overtake)
    taken.append(waiting._pop_waiting_trial_id())
    rival.join()
    assert sorted(taken, key=str) == [1, None]
