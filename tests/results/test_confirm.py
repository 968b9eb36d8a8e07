"""Confirming a real front on a tiny task, from Python and from the command line."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from support import small_task

from petra_optuna import cli
from petra_optuna.database import open_storage
from petra_optuna.errors import MeasurementFailed, StudyError, UserError
from petra_optuna.evaluation import Budget, quality_of
from petra_optuna.measurement import MeasuringProcess
from petra_optuna.operations import Half, Prune, QuantizeStatic, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results import (
    Confirmation,
    as_json,
    confirm,
    confirmation_of,
    front,
    publish,
)
from petra_optuna.results.artifacts import fetch_model
from petra_optuna.results.confirmation.record import Estimate
from petra_optuna.results.confirmation.tables import with_interval
from petra_optuna.study import StudyRecord, load_study, optimize
from petra_optuna.study import record as attributes
from petra_optuna.tasks import Task, open_once

confirm_module = sys.modules[confirm.__module__]  # the package has the function by the module's name
SPACE = SearchSpace((Train, Prune), (Half, QuantizeStatic), max_length=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("confirm")


@pytest.fixture(scope="module")
def searched(tiny_task: Task, home: Path) -> optuna.Study:
    url = f"sqlite:///{home}/study.db"
    return optimize(
        tiny_task, trials=3, storage=url, name="tiny", space=SPACE, budget=Budget(1), cache=home / "cache"
    )


@pytest.fixture(scope="module")
def confirmed(tiny_task: Task, searched: optuna.Study, home: Path) -> Confirmation:
    return confirm(searched, tiny_task, out=home / "out", seeds=2, bootstrap=200, rounds=2)


def _reset(study: optuna.Study) -> None:
    study.set_user_attr(attributes.TEST_READINGS, 0)


def test_quality_is_that_of_the_file_on_the_test_split(
    tiny_task: Task, searched: optuna.Study, confirmed: Confirmation, tmp_path: Path
) -> None:
    assert tiny_task.test is not None
    rows = {row.trial: row for row in front(searched).rows}
    assert [member.trial for member in confirmed.members] == list(rows)
    for member in confirmed.members:
        record = StudyRecord(searched).evaluation(member.trial)
        path = tmp_path / f"{member.trial}.onnx"
        fetch_model(searched, record, path)
        accuracy = member.values["accuracy"]
        assert accuracy.value == quality_of(path, tiny_task, open_once(tiny_task.test))
        assert accuracy.low <= accuracy.value <= accuracy.high
        size = float(path.stat().st_size)
        assert member.values["size_bytes"] == Estimate.exact(size)
        assert member.selection == rows[member.trial].values
        assert member.values["latency_ms"].low <= member.values["latency_ms"].value
    assert confirmed.samples == len(tiny_task.test)
    assert list(confirmed.members[0].values) == list(confirmed.directions)


def test_retrainings_differ_where_the_seed_tells_and_are_said_to_be_one_where_not(
    confirmed: Confirmation,
) -> None:
    by_notation = {member.notation: member for member in confirmed.members}
    for notation, member in by_notation.items():
        assert all(run.quality is not None for run in member.seeds)
        if "Tr" in notation:
            assert [run.seed for run in member.seeds] == [1, 2]
            assert not member.seedless
        else:
            assert [run.seed for run in member.seeds] == [1]
            assert member.seedless
            assert member.seeds[0].quality == member.values["accuracy"].value


def test_what_is_written_is_what_is_stored(
    searched: optuna.Study, confirmed: Confirmation, home: Path
) -> None:
    stored = confirmation_of(searched)
    assert stored == dataclasses.replace(confirmed)
    assert json.loads((home / "out" / "front.json").read_text()) == json.loads(
        json.dumps(confirmed.to_dict())
    )
    cards = {f"card-{member.trial}.md" for member in confirmed.members}
    written = {path.name for path in (home / "out").iterdir()}
    assert written == {"table.md", "front.json", "front.html", *cards}
    table = (home / "out" / "table.md").read_text()
    for member in confirmed.members:
        card = (home / "out" / f"card-{member.trial}.md").read_text()
        accuracy = member.values["accuracy"]
        assert f"| accuracy | {with_interval(accuracy)} |" in card
        size = f"{member.values['size_bytes'].value:.6g}"
        assert f"| size_bytes | {size} | {size} |" in card
        assert f"| {member.trial} | {with_interval(accuracy, '{:.4g}'.format)} |" in table
        assert "$" not in card
    assert "arrayminus" in (home / "out" / "front.html").read_text()
    assert json.loads(as_json(front(searched), confirmed.to_dict()))["confirmation"]["samples"] == 128


def test_the_dashboards_note_shows_it(searched: optuna.Study, confirmed: Confirmation) -> None:
    publish(searched)
    notes = str(searched._storage.get_study_system_attrs(searched._study_id))
    assert "Confirmed on the test split" in notes
    assert "was not used" not in notes


def test_the_test_split_is_read_once_and_a_second_look_is_counted(
    tiny_task: Task, searched: optuna.Study, confirmed: Confirmation
) -> None:
    before = StudyRecord(searched).test_readings
    with pytest.raises(StudyError, match=r"already used 1 time\(s\)"):
        confirm(searched, tiny_task, bootstrap=100, rounds=1)
    assert StudyRecord(searched).test_readings == before == confirmed.reading == 1
    again = confirm(searched, tiny_task, bootstrap=200, rounds=1, again=True)
    assert again.reading == StudyRecord(searched).test_readings == 2
    for first, second in zip(confirmed.members, again.members, strict=True):
        assert first.values["accuracy"] == second.values["accuracy"]  # the same seed, the same resamples
        assert first.difference == second.difference
    searched.set_user_attr(attributes.CONFIRMATION, confirmed.to_dict())
    searched.set_user_attr(attributes.TEST_READINGS, 1)


def test_a_reading_that_is_cut_off_counts(
    tiny_task: Task, searched: optuna.Study, confirmed: Confirmation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    _reset(searched)
    monkeypatch.setattr(Task, "score_prepared", stop)
    with pytest.raises(KeyboardInterrupt):
        confirm(searched, tiny_task, bootstrap=100, rounds=1)
    assert StudyRecord(searched).test_readings == 1


def test_of_two_confirmations_at_once_one_reads_the_test_split(
    tiny_task: Task, searched: optuna.Study, confirmed: Confirmation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one counts its reading while this one is timing, after both have seen that none was made."""
    _reset(searched)
    kept = searched.user_attrs[attributes.CONFIRMATION]
    time_alone = confirm_module.time_files

    def time_while_another_reads(*arguments: Any) -> Any:
        assert StudyRecord(load_study(searched._storage, "tiny")).count_test_reading(0)
        return time_alone(*arguments)

    monkeypatch.setattr(confirm_module, "time_files", time_while_another_reads)
    monkeypatch.setattr(confirm_module, "predict", None)
    with pytest.raises(StudyError, match=r"already used 1 time\(s\)"):
        confirm(searched, tiny_task, bootstrap=100, rounds=1)
    assert StudyRecord(searched).test_readings == 1
    assert searched.user_attrs[attributes.CONFIRMATION] == kept
    monkeypatch.undo()
    _reset(searched)
    monkeypatch.setattr(confirm_module, "time_files", time_while_another_reads)
    assert confirm(searched, tiny_task, bootstrap=100, rounds=1, again=True).reading == 2
    searched.set_user_attr(attributes.CONFIRMATION, kept)


def test_a_machine_that_cannot_time_the_files_does_not_read_the_test_split(
    tiny_task: Task, searched: optuna.Study, confirmed: Confirmation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MeasurementFailed("no answer in 120 s")

    _reset(searched)
    monkeypatch.setattr(MeasuringProcess, "measure", fail)
    with pytest.raises(StudyError, match=r"no file .* can be timed here .*no answer in 120 s"):
        confirm(searched, tiny_task, bootstrap=100, rounds=1)
    assert StudyRecord(searched).test_readings == 0


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no test split": ({"test": None, "fingerprinted": ()}, {}, "has no test split"),
    "another task": ({"fingerprint": "other"}, {}, "are not those of study"),
    "few resamples": ({}, {"bootstrap": 10}, "`bootstrap` must be at least 100"),
    "full folder": ({}, {"out": "full"}, "not an empty folder"),
    "a file in the way": ({}, {"out": "full/notes.txt/out"}, "cannot be written"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_confirmed_is_refused_before_the_test_split_is_read(
    tiny_task: Task, searched: optuna.Study, confirmed: Confirmation, tmp_path: Path, case: str
) -> None:
    task, arguments, reason = REFUSED[case]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("keep")
    if "out" in arguments:
        arguments = {"out": tmp_path / arguments["out"]}
    _reset(searched)
    with pytest.raises(UserError, match=reason):
        confirm(searched, dataclasses.replace(tiny_task, **task), **arguments)
    assert StudyRecord(searched).test_readings == 0
    assert (tmp_path / "full" / "notes.txt").read_text() == "keep"


def test_another_machine_an_empty_front_and_a_damaged_file_are_refused(
    tiny_task: Task, searched: optuna.Study, confirmed: Confirmation, home: Path
) -> None:
    _reset(searched)
    baseline = searched.user_attrs[attributes.BASELINE]
    searched.set_user_attr(attributes.BASELINE, {**baseline, "host": {**baseline["host"], "cpu": "abacus"}})
    with pytest.raises(StudyError, match="another machine"):
        confirm(searched, tiny_task)
    searched.set_user_attr(attributes.BASELINE, baseline)
    record = StudyRecord(searched).evaluation(confirmed.members[0].trial)
    stored = home / "artifacts" / record["artifact"]["id"]
    data = stored.read_bytes()
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StudyError, match="it is damaged"):
        confirm(searched, tiny_task)
    stored.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyRecord, "feasible_trials", lambda self: [])
        with pytest.raises(StudyError, match="is empty"):
            confirm(searched, tiny_task)
    assert StudyRecord(searched).test_readings == 0


def _petra(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["petra", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_writes_beside_the_database_and_says_so_the_second_time(
    tiny_task: Task,
    searched: optuna.Study,
    confirmed: Confirmation,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(small_task, "make", lambda: tiny_task)
    _reset(searched)
    url = f"sqlite:///{home}/study.db"
    command = ["confirm", "--storage", url, "--task", "support.small_task:make", "--bootstrap", 100]
    trials = [member.trial for member in confirmed.members]
    load_study(open_storage(url)).set_user_attr(attributes.TEST_READINGS, 0)
    study = load_study(open_storage(url))
    with pytest.MonkeyPatch.context() as patch:
        spec = study.user_attrs[attributes.SPECIFICATION]
        study.set_user_attr(
            attributes.SPECIFICATION, {**spec, "task": {**spec["task"], "name": "support.small_task:make"}}
        )
        assert _petra(patch, *command) == 0
        out = capsys.readouterr().out
        assert "confirmed on 128 test samples" in out
        assert (home / "confirmed" / "tiny" / f"card-{trials[0]}.md").exists()
        assert _petra(patch, *command) == 2
        error = capsys.readouterr().err
        assert "already used 1 time(s)" in error
        assert error.count("\n") == 1
        assert _petra(patch, "front", "--storage", url) == 0
        assert "confirmed on 128 test samples" in capsys.readouterr().out
