"""What reaches the terminal and the files: names as they are, no password, no traceback, in any locale."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from support.stored_study import old_task

from petra_optuna import cli
from petra_optuna.database import open_storage
from petra_optuna.errors import RuntimeFailed
from petra_optuna.study import StudyRecord, load_study, trial_record

STORED = Path(old_task.__file__).with_name("study.zip")
NAME = "bad[/b] [red]old[/red] :bug: ünï 日本"
URL = "sqlite:///study.db"
TASK = "support.stored_study.old_task:make"
Call = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the database of one study, whose name Rich would read as markup."""
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    _write("UPDATE studies SET study_name = ? WHERE study_name = 'old'", NAME)
    _write("DELETE FROM studies WHERE study_name = 'warm'")
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    def petra(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["petra", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    return petra


def _write(statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect("study.db")) as connection:
        connection.execute(statement, values)
        connection.commit()


def _add_from_outside() -> int:
    """Add a trial that dominates all others and has no file; its number."""
    study = load_study(open_storage(URL))
    best = {"maximize": 1e9, "minimize": 1e-9}
    directions = dict(StudyRecord(study).specification.objectives).values()
    study.add_trial(optuna.trial.create_trial(values=[best[direction] for direction in directions]))
    return len(study.trials) - 1


def _is_one_line(text: str) -> bool:
    return text.startswith("petra: ") and text.count("\n") == 1


@pytest.mark.parametrize("no_color", ["", "1"])
def test_names_and_descriptions_are_printed_as_they_are(
    home: Path, call: Call, capsys: Captured, monkeypatch: pytest.MonkeyPatch, no_color: str
) -> None:
    trial = load_study(open_storage(URL)).trials[2]
    stopped = {**trial.user_attrs[trial_record.EVALUATION], "stopped": {"epochs": 0.25, "reason": "weak"}}
    _write(
        "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ? AND key = ?",
        json.dumps(stopped),
        trial._trial_id,
        trial_record.EVALUATION,
    )
    monkeypatch.setenv("NO_COLOR", no_color)
    assert call("front", "--storage", URL, "--study", NAME) == 0
    printed = capsys.readouterr().out
    assert f"Front of study {NAME}" in printed
    assert "FP16 [stopped after 0.25 epochs]" in printed
    assert "\x1b" not in printed  # no terminal, no colours


def test_a_trial_that_was_added_from_outside_is_named_and_crashes_nothing(
    home: Path, call: Call, capsys: Captured
) -> None:
    assert call("front", "--storage", URL, "--format", "csv") == 0
    before = capsys.readouterr().out
    number = _add_from_outside()
    assert call("front", "--storage", URL, "--format", "csv") == 0
    assert capsys.readouterr().out == before
    assert call("front", "--storage", URL) == 0
    assert f"they were added from outside and have no file: trials {number}" in capsys.readouterr().out
    assert call("export", "--storage", URL, "--task", TASK, "--trial", number, "--out", "out") == 2
    error = capsys.readouterr().err
    assert "it was added from outside" in error
    assert _is_one_line(error)


def test_reading_leaves_the_folder_as_it_is(home: Path, call: Call) -> None:
    before = {path.name: path.is_dir() or path.read_bytes() for path in home.iterdir()}
    for form in ("table", "csv", "json"):
        assert call("front", "--storage", URL, "--format", form) == 0
    assert {path.name: path.is_dir() or path.read_bytes() for path in home.iterdir()} == before


IN_ASCII = """
    import sys
    from pathlib import Path
    from support.stored_study import old_task
    from petra_optuna import cli, confirmation_of, export_trial
    from petra_optuna.results.confirmation.write import write
    from petra_optuna.database import open_storage
    from petra_optuna.study import load_study

    assert sys.stdout.encoding != "utf-8"
    study, task = load_study(open_storage("sqlite:///study.db", read_only=True)), old_task.make()
    export_trial(study, 2, Path("out"), task)
    Path("confirmed").mkdir()
    write(confirmation_of(study), study, task, Path("confirmed"))
    sys.argv = ["petra", "front", "--storage", "sqlite:///study.db", "--html", "front.html"]
    cli.main()
"""


def test_files_are_utf_8_and_prints_are_escaped_where_the_locale_is_ascii(home: Path) -> None:
    _write(
        "UPDATE study_user_attributes SET value_json = replace(value_json, ?, ?) WHERE key = ?",
        '"study": "old"',
        f'"study": {json.dumps(NAME)}',
        "petra:confirmation",
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IN_ASCII)],
        env={**os.environ, **ascii_only, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"\\u65e5" in done.stdout
    for file in ("out/card.md", "confirmed/table.md", "confirmed/card-2.md"):
        assert NAME in Path(file).read_text(encoding="utf-8")
    for file in ("front.html", "confirmed/front.html"):
        assert "plotly" in Path(file).read_text(encoding="utf-8")


def test_the_bare_command_prints_its_help_and_no_error(call: Call, capsys: Captured) -> None:
    assert call() == 0
    printed = capsys.readouterr()
    assert "Usage: petra" in printed.out
    assert printed.err == ""


BAD_TASKS = {
    "no function": ("os:name", "os:name is no function but a str"),
    "arguments": ("os:stat", "must be callable without arguments"),
    "another result": ("os:getcwd", "returned str"),
    "no attribute": ("os:nosuch", "has no attribute 'nosuch'"),
    "an error in it": (
        "failing:make",
        "failing:make() fails: ZeroDivisionError: division by zero, raised in",
    ),
    "a file it misses": ("failing:read", "No such file or directory: 'data.npy', raised in"),
    "bad syntax": ("broken:make", "SyntaxError"),
}


@pytest.mark.parametrize("case", BAD_TASKS)
def test_a_task_that_cannot_be_made_is_one_line(
    call: Call, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("failing.py").write_text("def make():\n    1 / 0\n\ndef read():\n    open('data.npy')\n")
    Path("broken.py").write_text("def make(:\n")
    name, reason = BAD_TASKS[case]
    assert call("run", name, "--trials", 1) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert _is_one_line(error)


@pytest.mark.parametrize("command", ["front", "dashboard", "resume"])
def test_no_password_of_a_storage_is_printed(call: Call, capsys: Captured, command: str) -> None:
    for url in ("postgresql://me:s3cr3t@host:port/db", "postgresql://127.0.0.1:1/db?user=me&password=s3cr3t"):
        assert call(command, "--storage", url) == 2
        error = capsys.readouterr().err
        assert "s3cr3t" not in error
        assert _is_one_line(error)


def test_a_file_that_does_not_run_here_is_one_line(
    home: Path, call: Call, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise RuntimeFailed("no such kernel")

    monkeypatch.setattr("petra_optuna.results.export.quality_of", refuse)
    assert call("export", "--storage", URL, "--task", TASK, "--trial", 2, "--out", "out") == 2
    error = capsys.readouterr().err
    assert "cannot be run here, so nothing was exported: no such kernel" in error
    assert _is_one_line(error)
    assert not Path("out").exists()


def test_ctrl_c_promises_a_resume_only_where_there_is_something_to_resume(
    call: Call, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for module, command in (("results", ["front"]), ("search", ["resume"])):
        monkeypatch.setattr(f"petra_optuna.cli.{module}.open_storage", interrupt)
        assert call(*command) == 130
    assert capsys.readouterr().err.splitlines() == [
        "petra: stopped",
        "petra: stopped; `petra resume` runs the interrupted trial again",
    ]


IMPORTING = """
    import os, runpy, signal, sys

    class Interrupter:
        def find_spec(self, name, path=None, target=None):
            if name == "petra_optuna.cli":
                os.kill(os.getpid(), signal.SIGINT)

    sys.meta_path.insert(0, Interrupter())
    sys.argv = ["petra", "tasks"]
    runpy.run_module("petra_optuna", run_name="__main__")
"""


def test_ctrl_c_while_the_imports_last_ends_without_a_word() -> None:
    command = [sys.executable, "-c", textwrap.dedent(IMPORTING)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
