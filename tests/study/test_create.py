"""A study exists whole or not at all, however many make it and whenever they are killed."""

from __future__ import annotations

import functools
import logging
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from support.children import kill_this_process, run_in_child
from support.postgres import new_database
from support.specification import SPACE, specification_with

from petra_optuna.database import open_storage
from petra_optuna.errors import StudyError
from petra_optuna.measurement import Baseline
from petra_optuna.study import StudyRecord, create_study, load_study
from petra_optuna.study import create as create_module
from petra_optuna.study import record as attributes
from petra_optuna.tasks import Task

NAME = "made"
TASK = cast(Task, SimpleNamespace(name="fake", trained=True))
VALUES = {"accuracy": 0.9, "latency_ms": 2.0, "throughput_per_s": 100.0, "size_bytes": 1e6}


@pytest.fixture(autouse=True)
def baseline_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each baseline has another latency, so that one can be told from another."""
    made = iter(range(1, 100))

    def measure(task: Task, profile: Any, path: Path, store: object) -> dict[str, Any]:
        path.write_bytes(b"a model")
        values = {**VALUES, "latency_ms": float(next(made))}
        return {
            "values": values,
            "elsewhere": {},
            "baseline": Baseline(values["latency_ms"], {1: 100.0}).to_dict(),
        }

    monkeypatch.setattr(create_module, "measure_baseline", measure)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    if request.param == "sqlite":
        return "sqlite:///storage/study.db"
    return new_database(request.getfixturevalue("postgres_url"), f"made_{uuid.uuid4().hex}")


def _make(storage: RDBStorage, **changes: Any) -> optuna.Study:
    return create_study(storage, NAME, TASK, SPACE, specification_with(**changes))


def _is_whole(study: optuna.Study) -> bool:
    record = StudyRecord(study)
    waiting = [trial.state.name for trial in study.trials]
    assert waiting == ["WAITING"] * 5
    assert [trial.number for trial in study.trials] == list(range(5))
    assert all(trial.system_attrs["fixed_params"] for trial in study.trials)
    assert study.metric_names == ["accuracy", "latency_ms", "throughput_per_s", "size_bytes"]
    assert [direction.name for direction in study.directions] == [
        "MAXIMIZE",
        "MINIMIZE",
        "MAXIMIZE",
        "MINIMIZE",
    ]
    latency = record.baseline.latency_ms
    assert record.baseline_values["latency_ms"] == record.bounds.reference[1] == latency
    stored = record.artifact_folder / record.baseline_record["artifact_id"]
    return stored.read_bytes() == b"a model"


def _while_another_makes_it(
    monkeypatch: pytest.MonkeyPatch, other: Callable[[], optuna.Study]
) -> list[optuna.Study]:
    """Let another process make the study while the first one stores its baseline; what it made."""
    store, made = StudyRecord.store_baseline, cast("list[optuna.Study]", [])

    def overtaken(record: StudyRecord, *arguments: Any) -> None:
        if not made:
            made.append(cast(optuna.Study, None))  # the other one is not overtaken itself
            made[0] = other()
        store(record, *arguments)

    monkeypatch.setattr(StudyRecord, "store_baseline", overtaken)
    return made


def test_a_new_study_is_whole(url: str) -> None:
    assert _is_whole(_make(open_storage(url)))
    assert _is_whole(load_study(open_storage(url)))


def test_of_two_that_make_one_study_the_second_continues_the_firsts(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = _while_another_makes_it(monkeypatch, lambda: _make(open_storage(url)))
    with caplog.at_level(logging.WARNING):
        study = _make(open_storage(url))
    assert _is_whole(study)
    assert study._study_id == made[0]._study_id
    assert study.user_attrs == made[0].user_attrs
    assert optuna.get_all_study_names(open_storage(url)) == [NAME]
    assert len([path for path in Path("storage/artifacts").iterdir() if path.is_file()]) == 1
    assert caplog.messages == [f"study {NAME!r} was made by another process in the meantime; continuing it"]


def test_a_second_maker_with_another_specification_is_refused_and_harms_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _while_another_makes_it(monkeypatch, lambda: _make(open_storage(url)))
    with pytest.raises(StudyError, match=r"exists with another specification \(seed: 9 != 1\)"):
        _make(open_storage(url), seed=1)
    assert _is_whole(load_study(open_storage(url)))


def test_a_kill_at_any_commit_leaves_a_name_that_can_be_used(url: str) -> None:
    open_storage(url).engine.dispose()
    commits = 0
    while True:
        commits += 1
        code = run_in_child(functools.partial(_make_and_die, url, commits))
        study = _make(open_storage(url))
        assert _is_whole(study)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        optuna.delete_study(study_name=NAME, storage=open_storage(url))
    assert commits > 2


def _make_and_die(url: str, at: int) -> None:
    """Make the study; kill this process in its commit of that number."""
    storage, commits = open_storage(url), iter(range(1, 1000))

    def die_in_time(_connection: object) -> None:
        if next(commits) == at:
            kill_this_process()

    sqlalchemy.event.listen(storage.engine, "commit", die_in_time)
    _make(storage)


@pytest.mark.filterwarnings("ignore:.*set_metric_names is experimental")
@pytest.mark.parametrize("stage", ["named", "with metrics", "specified"])
def test_what_an_earlier_release_made_half_is_made_anew(url: str, stage: str) -> None:
    half = optuna.create_study(storage=open_storage(url), study_name=NAME, directions=["minimize"])
    if stage != "named":
        half.set_metric_names(["x"])
    if stage == "specified":
        StudyRecord(half).store_specification(specification_with(seed=1))
        half.enqueue_trial({"length": 0})
    assert _is_whole(_make(open_storage(url)))
    assert optuna.get_all_study_names(open_storage(url)) == [NAME]


@pytest.mark.parametrize("holds", ["an attribute", "a trial"])
def test_a_study_of_another_program_is_never_replaced(url: str, holds: str) -> None:
    theirs = optuna.create_study(storage=open_storage(url), study_name=NAME, directions=["minimize"])
    if holds == "an attribute":
        theirs.set_user_attr("mine", 1)
    else:
        theirs.enqueue_trial({"x": 1})
    with pytest.raises(StudyError, match="has no petra specification"):
        _make(open_storage(url))
    assert attributes.SPECIFICATION not in theirs.user_attrs
