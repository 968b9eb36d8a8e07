"""Living workers keep their trials; the trials of dead ones are run again, wherever these ran."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from support.children import kill_this_process, run_in_child
from support.postgres import new_database
from support.toy_study import elsewhere, new_study, opened, signed

from petra_optuna.samplers import finished_trials, heartbeats, record_heartbeat
from petra_optuna.study import TrialRecord, liveness, worker_identity
from petra_optuna.study.liveness import STALE_S, await_signs_of_life, claim_dead_trials
from petra_optuna.study.worker_identity import Life, life_of, this_worker

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore:.*is experimental")
linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and boots are told from /proc")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def _age(study: optuna.Study, seconds: float) -> None:
    """Set the heartbeats of all trials back."""
    engine = sqlalchemy.create_engine(opened_url(study))
    with engine.begin() as connection:
        moment = f"datetime('now', '-{seconds} seconds')"
        connection.execute(sqlalchemy.text(f"UPDATE trial_heartbeats SET heartbeat = {moment}"))
    engine.dispose()


def opened_url(study: optuna.Study) -> str:
    backend = study._storage._backend  # type: ignore[attr-defined]
    assert isinstance(backend, RDBStorage)
    return backend.url


def _running(study: optuna.Study, worker: worker_identity.WorkerIdentity | None, beats: bool = True) -> None:
    """A RUNNING trial of that worker."""
    trial = study.ask()
    if worker is not None:
        TrialRecord(trial).store_worker(worker)
    if beats:
        record_heartbeat(study, study.get_trials(deepcopy=False)[trial.number])


def _states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def test_this_process_lives_and_one_of_another_start_does_not() -> None:
    worker = this_worker()
    assert life_of(worker) is Life.ALIVE
    assert life_of({**worker, "start_mark": worker["start_mark"] - 100}) is Life.DEAD


def test_a_process_that_ended_or_was_not_reaped_is_dead() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the other end is closed
        os._exit(0)
    os.close(read)
    mark = worker_identity._start_mark(child)
    assert mark is not None
    worker = {**this_worker(), "pid": child, "start_mark": mark}
    assert life_of(worker) is Life.ALIVE  # type: ignore[arg-type]
    os.kill(child, signal.SIGSTOP)
    assert life_of(worker) is Life.ALIVE  # type: ignore[arg-type]
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
    assert life_of(worker) is Life.DEAD  # type: ignore[arg-type]
    os.waitpid(child, 0)
    os.close(write)
    assert life_of(worker) is Life.DEAD  # type: ignore[arg-type]


@linux
@pytest.mark.parametrize("changed", ["namespace", "boot"])
def test_a_process_of_another_table_is_not_judged_by_its_number(
    changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers may have one host name, and one machine has other numbers after a boot."""
    worker = {**this_worker(), "pid": 2**22 + 1}
    assert life_of(worker) is Life.DEAD  # type: ignore[arg-type]
    boot, _, namespace = worker["process_table"].partition(" ")  # type: ignore[attr-defined]
    table = f"{boot} pid:[1]" if changed == "namespace" else f"another {namespace}"
    assert life_of({**worker, "process_table": table}) is Life.UNKNOWN  # type: ignore[typeddict-item]


@linux
def test_a_clock_that_is_set_changes_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = this_worker()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: worker["started"] + 3600)
    assert this_worker()["started"] != worker["started"]
    assert life_of(worker) is Life.ALIVE


@linux
def test_a_process_that_proc_hides_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``/proc`` mounted with ``hidepid`` shows a user's own processes only."""
    worker, table = this_worker(), worker_identity.process_table()
    monkeypatch.setattr(worker_identity, "process_table", lambda: table)
    monkeypatch.setattr(worker_identity, "_PROC", tmp_path)
    assert life_of(worker) is Life.UNKNOWN
    assert life_of({**worker, "pid": 2**22 + 1}) is Life.DEAD


def test_a_worker_of_an_earlier_release_is_judged_by_its_heartbeat() -> None:
    assert life_of({"host": this_worker()["host"], "pid": 2**22 + 1, "started": 1.0}) is Life.UNKNOWN


def test_a_killed_worker_of_this_machine_is_known_at_once(url: str) -> None:
    study = new_study(url)

    def dies(trial: optuna.Trial) -> tuple[float, float]:
        signed(trial)
        kill_this_process()
        return 0.0, 0.0

    assert run_in_child(lambda: opened(url).optimize(dies, n_trials=1)) == -signal.SIGKILL
    assert claim_dead_trials(study) == [0]
    assert _states(study) == ["FAIL", "WAITING"]


@pytest.mark.parametrize("signs", ["in time", "too late"])
def test_a_worker_of_another_machine_lives_as_long_as_its_heart_beats(url: str, signs: str) -> None:
    study = new_study(url)
    _running(study, elsewhere())
    _age(study, STALE_S - 20 if signs == "in time" else STALE_S + 20)
    assert claim_dead_trials(study) == ([] if signs == "in time" else [0])
    assert _states(study) == (["RUNNING"] if signs == "in time" else ["FAIL", "WAITING"])


def test_a_stopped_worker_of_this_machine_keeps_its_trial(url: str) -> None:
    """Its heart does not beat, as on a machine that was suspended."""
    study = new_study(url)
    _running(study, this_worker())
    _age(study, 10 * STALE_S)
    opened(url).optimize(signed, n_trials=1)  # Optuna itself would fail the trial here
    assert claim_dead_trials(study) == []
    assert _states(study) == ["RUNNING", "COMPLETE"]


@pytest.mark.parametrize("worker", [None, elsewhere()], ids=["unsigned", "elsewhere"])
def test_a_trial_that_never_gave_a_sign_of_life_is_dead_in_the_end(
    url: str, worker: worker_identity.WorkerIdentity | None
) -> None:
    study = new_study(url)
    _running(study, worker, beats=False)
    assert heartbeats(study) == {}
    assert claim_dead_trials(study) == []
    assert heartbeats(study)[0].age_s < STALE_S
    _age(study, STALE_S + 20)
    assert claim_dead_trials(study) == [0]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_heartbeat_is_as_old_as_the_databases_clock_says(
    database: str, url: str, request: pytest.FixtureRequest
) -> None:
    if database == "postgresql":
        url = new_database(request.getfixturevalue("postgres_url"), "heartbeats")
    study = new_study(url)
    for _ in range(2):
        _running(study, elsewhere())
    record_heartbeat(study, study.get_trials(deepcopy=False)[1])  # a second one, which replaces the first
    assert set(heartbeats(study)) == {0, 1}
    assert all(0 <= beat.age_s < STALE_S for beat in heartbeats(study).values())
    assert claim_dead_trials(study) == []


def test_a_heart_that_could_not_beat_once_beats_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study(url)
    record = RDBStorage.record_heartbeat

    def locked(storage: RDBStorage, trial_id: int) -> None:
        monkeypatch.setattr(RDBStorage, "record_heartbeat", record)
        raise StorageInternalError("database is locked")

    monkeypatch.setattr(RDBStorage, "record_heartbeat", locked)
    _running(study, None)
    assert heartbeats(study) == {}
    _running(study, None)
    assert set(heartbeats(study)) == {1}


def test_a_kill_between_the_failure_of_a_dead_trial_and_its_rerun_loses_nothing(url: str) -> None:
    study = new_study(url)
    _running(study, elsewhere())
    _age(study, STALE_S + 20)

    def claims_and_dies() -> None:
        mine = opened(url)
        mine.add_trial = lambda trial: kill_this_process()  # type: ignore[method-assign]
        claim_dead_trials(mine)
        mine.optimize(signed, n_trials=1)

    assert run_in_child(claims_and_dies) == -signal.SIGKILL
    assert _states(study) == ["FAIL"]
    assert finished_trials(study) == []
    assert claim_dead_trials(study) == [0]


@pytest.fixture
def hours_pass(url: str, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Things that happen in the pauses of a wait, in their order; the heartbeats age in each."""
    events: list[Callable[[], None]] = []

    def pause(_seconds: float) -> None:
        if events:
            events.pop(0)()

    monkeypatch.setattr(liveness.time, "sleep", pause)
    assert liveness.time is time
    return events


def test_a_trial_is_waited_for_until_its_worker_is_known_to_live(
    url: str, hours_pass: list[Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    study = new_study(url)
    _running(study, elsewhere())
    _age(study, 20)
    frozen = study.get_trials(deepcopy=False)[0]
    hours_pass += [lambda: None, lambda: None, lambda: None, lambda: record_heartbeat(study, frozen)]
    hours_pass += [lambda: pytest.fail("it was waited for although it gave a sign of life")]
    with caplog.at_level(logging.WARNING):
        await_signs_of_life(study)
    assert _states(study) == ["RUNNING"]
    assert caplog.messages == ["waiting up to 60 s for a sign of life of trial 0: its worker may have died"]


def test_a_trial_is_waited_for_until_its_worker_is_known_to_be_dead(
    url: str, hours_pass: list[Callable[[], None]]
) -> None:
    study = new_study(url)
    _running(study, None)
    hours_pass += [lambda: None, lambda: _age(study, STALE_S + 20)]
    await_signs_of_life(study)
    assert _states(study) == ["FAIL", "WAITING"]


def test_a_wait_ends(url: str, hours_pass: list[Callable[[], None]]) -> None:
    """Also where the clock of the database stands still."""
    study = new_study(url)
    _running(study, None)
    await_signs_of_life(study)
    assert study.get_trials()[0].state == TrialState.RUNNING


def test_nobody_waits_for_a_worker_that_can_be_seen(url: str, hours_pass: list[Callable[[], None]]) -> None:
    study = new_study(url)
    _running(study, this_worker())
    hours_pass += [lambda: pytest.fail("it was waited for")]
    await_signs_of_life(study)
