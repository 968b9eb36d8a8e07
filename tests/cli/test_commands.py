"""The command ``petra`` as its user calls it, in this process."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
import typer
from optuna import Trial
from support import small_task
from support.loaders import apart
from support.specification import specification_with
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna import cli, confirm, export_trial, optimize, resume
from petra_optuna.cli import app
from petra_optuna.cli.options import FUNCTIONS, OPTIONS, PANELS, as_options
from petra_optuna.cli.tasks import stored_task
from petra_optuna.database import open_storage
from petra_optuna.evaluation import Limits, Rungs
from petra_optuna.measurement import DeviceProfile
from petra_optuna.samplers import PRIORS, finished_trials
from petra_optuna.study import StudyRecord, TaskSource, load_study, trial_record
from petra_optuna.study import record as attributes
from petra_optuna.study.objective import Objective
from petra_optuna.study.worker_processes import HelperCommand
from petra_optuna.tasks import Task


def petra(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of ``petra ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["petra", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


COMMANDS = (
    "run",
    "resume",
    "front",
    "confirm",
    "export",
    "recommend",
    "tune",
    "sensitivity",
    "tasks",
    "dashboard",
)

pytestmark = pytest.mark.usefixtures("measured_shortly")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: petra(monkeypatch, *arguments)


@pytest.fixture
def user_task(monkeypatch: pytest.MonkeyPatch, tiny_task: Task) -> str:
    """The name of a task of the user's own, without training its base again."""
    monkeypatch.setattr(small_task, "make", lambda: tiny_task)
    return "support.small_task:make"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(call, capsys, command: str) -> None:
    assert call(command, "--help") == 0
    assert f"petra {command}" in capsys.readouterr().out.split("Example:")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_in_a_plain_sentence(command: str) -> None:
    for parameter in typer.main.get_command(app).commands[command].params:
        text = parameter.help or ""
        assert re.fullmatch(r"[A-Za-z][^\n]+[.]", text), f"petra {command} {parameter.name}: {text!r}"


def test_the_help_of_a_search_fits_two_screens(call, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert call("run", "--help") == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 2 * 40
    positions = [text.index(f"─ {panel} ─") for panel in PANELS]
    assert positions == sorted(positions)


def test_errors_of_the_library_are_told_in_the_words_of_the_command() -> None:
    told = as_options(
        "`trials` must be at least 1, got 0; continue with `resume`, give `limits.macs`, not `x`"
    )
    assert (
        told == "--trials must be at least 1, got 0; continue with `petra resume`, give --max-macs, not `x`"
    )


def test_every_option_that_errors_name_exists() -> None:
    commands = typer.main.get_command(app).commands
    flags = {flag for command in commands.values() for option in command.params for flag in option.opts}
    assert set(OPTIONS.values()) <= flags
    assert {name.strip("`").removeprefix("petra ") for name in FUNCTIONS.values()} <= set(commands)


@pytest.mark.parametrize("function", [optimize, resume, confirm, export_trial], ids=lambda one: one.__name__)
def test_every_argument_that_an_option_sets_has_its_translation(function) -> None:
    """What only Python can give, such as a sampler, has no option."""
    python_only = {
        "stop",
        "space",
        "budget",
        "limits",
        "sampler",
        "source",
        "callbacks",
        "progress",
        "rounds",
    }
    arguments = set(inspect.signature(function).parameters) - python_only - {"study", "number"}
    assert arguments <= set(OPTIONS)


BAD = {
    "no trials": (["run", "digits", "--trials", 0], "--trials must be at least 1"),
    "no end": (["run", "digits"], "--trials, --timeout"),
    "target": (["run", "digits", "--target", "accuracy"], "--target must be NAME=VALUE"),
    "generations": (["run", "digits", "--generations", 0], "at least 1, got 0"),
    "stagnation": (["run", "digits", "--stagnation", 0], "at least 1 trial"),
    "unknown task": (["run", "nosuch", "--trials", 1], "nosuch"),
    "task module missing": (["run", "no_such_module:make", "--trials", 1], "cannot be imported"),
    "missing data": (["run", "cifar10", "--trials", 1, "--data-root", "missing"], "missing"),
    "epochs": (["run", "digits", "--trials", 1, "--epochs", 0], "--epochs must be at least 1, got 0"),
    "device": (["run", "digits", "--trials", 1, "--device", "abacus"], "abacus"),
    "workers": (["run", "digits", "--trials", 1, "--workers", 0], "--workers"),
    "a drop": (
        ["run", "digits", "--trials", 1, "--max-quality-drop", -0.1],
        "--max-quality-drop must be at least 0",
    ),
    "mode": (["run", "digits", "--trials", 1, "--mode", "raw"], "'raw' is not one of"),
    "rungs": (
        ["run", "digits", "--trials", 1, "--rungs", "--rung-eta", 1],
        "--rung-eta must be greater than 1",
    ),
    "no rungs": (["run", "digits", "--trials", 1, "--rung-eta", 3], "need --rungs"),
    "no such study": (["run", "digits", "--trials", 1, "--from-study", "old"], "no study 'old'"),
    "no such database": (
        ["run", "digits", "--trials", 1, "--from-study", "old", "--from-storage", "sqlite:///typo.db"],
        "there is no database typo.db",
    ),
    "itself": (["run", "digits", "--trials", 1, "--from-study", "digits"], "cannot start from itself"),
    "storage alone": (
        ["run", "digits", "--trials", 1, "--from-storage", "sqlite:///a.db"],
        "needs --from-study",
    ),
    "device file": (["run", "digits", "--trials", 1, "--device", "no.json"], "no.json cannot be read"),
    "storage": (
        ["run", "digits", "--trials", 1, "--storage", "nowhere://x"],
        "cannot be opened as a database",
    ),
    "no database": (["front", "--storage", "sqlite:///typo.db"], "there is no database typo.db"),
    "resume nothing": (["resume", "--storage", "sqlite:///typo.db"], "there is no database"),
    "export nothing": (
        ["export", "--trial", 0, "--out", "x", "--storage", "sqlite:///typo.db"],
        "no database",
    ),
    "serve nothing": (["dashboard", "--storage", "sqlite:///typo.db"], "there is no database"),
    "unknown option": (["run", "digits", "--trails", 3], "--trails"),
    "unknown command": (["rum"], "rum"),
    "no number": (["run", "digits", "--trials", "many"], "--trials"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_with_one_line_and_exit_code_2(call, capsys, case: str) -> None:
    arguments, reason = BAD[case]
    assert call(*arguments) == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.startswith("petra: ")
    assert printed.err.count("\n") == 1


def test_an_empty_database_file_and_a_text_file_are_told_apart(call, capsys, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert call("front", "--storage", "sqlite:///empty.db") == 2
    assert "holds no study; start one with `petra run`" in capsys.readouterr().err
    (tmp_path / "text.db").write_text("not a database " * 50)
    assert call("front", "--storage", "sqlite:///text.db") == 2
    assert "cannot be used as a database" in capsys.readouterr().err


def test_a_study_of_another_program_is_refused(call, capsys, tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/other.db")
    optuna.create_study(storage=storage, study_name="theirs", directions=["minimize", "maximize"])
    assert call("front", "--storage", "sqlite:///other.db") == 2
    assert "has no petra specification" in capsys.readouterr().err


def test_limits_rungs_and_device_become_the_studys(call, tmp_path: Path, user_task: str) -> None:
    (tmp_path / "board.json").write_text('{"throughput_batches": [16]}')
    limits = ["--max-quality-drop", 0.25, "--max-size-mb", 3, "--max-latency-ms", 50]
    rungs = ["--rungs", "--rung-epochs", 2, "--rung-fraction", 0.5, "--rung-eta", 3, "--rung-levels", 1]
    url = "sqlite:///storage/tiny.db"
    given = [*limits, *rungs, "--device", "board.json", "--storage", url, "--cache", "cache", "--sensitivity"]
    assert call("run", user_task, "--trials", 1, *given) == 0
    made = StudyRecord(load_study(open_storage(url))).specification
    assert made.sensitivity
    assert load_study(open_storage(url)).user_attrs[PRIORS]
    assert made.limits == Limits(size_bytes=3e6, latency_ms=50, quality_drop=0.25)
    assert made.rungs == Rungs(min_epochs=2, min_fraction=0.5, eta=3, levels=1)
    assert made.profile == DeviceProfile(throughput_batches=(16,))
    bounded = load_study(open_storage(url)).trials[0].constraints
    assert set(bounded) == {name for name, _ in made.limits.items()}


def test_the_layers_of_a_model_are_shown(
    call, capsys, user_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petra_optuna.evaluation.sensitivity.STRENGTHS", (0.5,))
    assert call("sensitivity", user_task, "--cache", "cache") == 0
    first = capsys.readouterr().out
    assert "stages.0.conv1" in first
    assert "prior prune.removed = " in first
    assert call("sensitivity", user_task, "--cache", "cache") == 0  # from the cache
    assert capsys.readouterr().out == first


def test_a_study_from_run_to_export(call, capsys, tmp_path: Path, user_task: str) -> None:
    url = "sqlite:///storage/tiny.db"
    search = ["run", user_task, "--storage", url, "--epochs", 1, "--cache", "cache"]
    assert call(*search, "--trials", 4) == 0
    assert "[4/4]" in capsys.readouterr().out
    assert call(*search, "--trials", 4) == 0  # finished already
    assert call(*search, "--trials", 4, "--seed", 1) == 2
    assert "another specification (seed: 0 != 1)" in capsys.readouterr().err
    assert call("front", "--storage", url, "--format", "json", "--html", "front.html") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["front"]
    assert "plotly" in (tmp_path / "front.html").read_text()
    assert call("front", "--storage", url, "--format", "csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found["front"])
    assert call("front", "--storage", url, "--html", "/dev/full") == 2
    assert "No space left" in capsys.readouterr().err
    assert call("export", "--storage", url, "--trial", 3, "--out", "out") == 2  # nothing named is imported
    assert "give it again with --task" in capsys.readouterr().err
    assert call("export", "--storage", url, "--trial", 3, "--out", "out", "--task", user_task) == 0
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert call("export", "--storage", url, "--trial", 77, "--out", "no", "--task", user_task) == 2
    assert "has no trial 77" in capsys.readouterr().err
    assert call("resume", "--storage", url, "--task", user_task, "--target", "speed=1") == 2
    assert "it has accuracy, latency_ms" in capsys.readouterr().err
    assert call("resume", "--storage", url, "--task", user_task, "--target", "size_bytes=1e9") == 0
    assert len(finished_trials(load_study(open_storage(url)))) == 4  # the target was reached before
    assert call("resume", "--storage", url, "--task", user_task, "--trials", 5) == 0
    assert len(load_study(open_storage(url)).trials) == 5


def test_a_study_moves_with_its_cache_and_another_cache_can_be_given(
    call, capsys, tmp_path: Path, user_task: str
) -> None:
    search = ["run", user_task, "--storage", "sqlite:///old/tiny.db", "--epochs", 1, "--trials", 2]
    assert call(*search) == 0
    assert list((tmp_path / "old" / "cache").glob("*.prefix"))  # of the control that trains
    assert not (tmp_path / "storage").exists()
    (tmp_path / "old").rename(tmp_path / "new")
    stored = ["--storage", "sqlite:///new/tiny.db", "--task", user_task]
    before = set((tmp_path / "new" / "cache").rglob("*"))
    assert call("resume", *stored, "--trials", 3) == 0
    assert set((tmp_path / "new" / "cache").rglob("*")) > before
    assert call("export", *stored, "--trial", 1, "--out", "out") == 0
    assert not (tmp_path / "old").exists()
    study = load_study(open_storage("sqlite:///new/tiny.db"))
    specification = study.user_attrs["petra:specification"]
    assert specification["cache"] == "cache"
    study.set_user_attr("petra:specification", {**specification, "cache": "/proc/of/another/machine"})
    capsys.readouterr()
    assert call("resume", *stored, "--trials", 4) == 2
    assert "give another as --cache" in capsys.readouterr().err
    assert call("resume", *stored, "--trials", 4, "--cache", "own") == 0
    assert list((tmp_path / "own").iterdir())


def test_a_full_disk_stops_with_one_line_and_loses_nothing(
    call, capsys, tmp_path: Path, user_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact store refuses with the error of a full disk; then there is room again."""
    url = "sqlite:///storage/tiny.db"
    search = ["run", user_task, "--storage", url, "--epochs", 1, "--cache", "cache"]
    assert call(*search, "--trials", 2) == 0
    with monkeypatch.context() as patch:
        patch.setattr("optuna.artifacts.FileSystemArtifactStore.write", _no_space)
        assert call(*search, "--trials", 4) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "Traceback" not in error
    assert call(*search, "--trials", 5) == 0
    study = load_study(open_storage(url))
    done = [trial for trial in study.trials if trial_record.EVALUATION in trial.user_attrs]
    notations = [trial.user_attrs[trial_record.EVALUATION]["notation"] for trial in done]
    assert notations == ["original", "Tr", "PTQ", "Pr-Tr-PTQ", "FP16"]  # the refused one was run again


def test_a_full_disk_while_the_study_is_made_leaves_its_name_free(
    call, capsys, user_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = ["run", user_task, "--storage", "sqlite:///tiny.db", "--epochs", 1, "--trials", 1]
    with monkeypatch.context() as patch:
        patch.setattr("optuna.artifacts.FileSystemArtifactStore.write", _no_space)
        assert call(*search) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert call(*search) == 0


def test_a_stopped_trial_is_run_again(call, capsys, user_task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    search = ["run", user_task, "--storage", "sqlite:///tiny.db", "--epochs", 1, "--trials", 2]
    with monkeypatch.context() as patch:
        patch.setattr("petra_optuna.study.objective.Evaluator.evaluate", _interrupted)
        assert call(*search) == 130
    assert "stopped" in capsys.readouterr().err
    assert call("resume", "--storage", "sqlite:///tiny.db", "--task", user_task, "--trials", 5) == 0
    study = load_study(open_storage("sqlite:///tiny.db"))
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", *["COMPLETE"] * 5]
    notations = {trial.user_attrs[trial_record.EVALUATION]["notation"] for trial in study.trials[1:]}
    assert "original" in notations  # the trial that was stopped


def _broken() -> Task:
    class Broken(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    loader = DataLoader(TensorDataset(torch.zeros(8, 4), torch.zeros(8).long()), batch_size=4)
    return Task.from_loaders(Broken(), loader, apart(loader), metric="accuracy")


def test_a_model_whose_forward_fails_is_one_line(call, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_task, "make", _broken)
    assert call("run", "support.small_task:make", "--trials", 1) == 2
    error = capsys.readouterr().err
    assert "mat1 and mat2 shapes" in error
    assert error.count("\n") == 1


def test_two_workers_share_a_study(call, user_task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = str(Path(small_task.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [tests, *sys.path])))
    monkeypatch.setattr(Objective, "__call__", _after_another_worker(Objective.__call__))
    search = ["run", user_task, "--storage", "sqlite:///tiny.db", "--epochs", 1, "--trials", 4]
    assert call(*search, "--workers", 2) == 0
    study = load_study(open_storage("sqlite:///tiny.db"))
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") in (4, 5)  # both may see the last but one at the same moment
    assert "RUNNING" not in states
    assert len({trial.user_attrs[trial_record.WORKER]["pid"] for trial in study.trials[:4]}) == 2


def test_helpers_import_what_the_caller_names_and_nothing_that_the_database_names(
    call, user_task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = ["--storage", "sqlite:///tiny.db"]
    assert call("run", user_task, *storage, "--epochs", 1, "--trials", 1) == 0
    study = load_study(open_storage("sqlite:///tiny.db"))
    stored = study.user_attrs[attributes.SPECIFICATION]
    study.set_user_attr(attributes.SPECIFICATION, {**stored, "task": {**stored["task"], "name": "evil:run"}})
    started: list[list[str]] = []

    def words(command: HelperCommand) -> list[str]:
        started.append(asked_for(command))
        return [sys.executable, "-c", ""]

    asked_for = HelperCommand.words
    monkeypatch.setattr(HelperCommand, "words", words)
    assert call("resume", *storage, "--task", user_task, "--trials", 2, "--workers", 2) == 0
    assert f"--task={user_task}" in started[0]
    assert f"--storage=sqlite:///{tmp_path}/tiny.db" in started[0]
    assert not any("evil" in word for word in started[0])


def test_a_helper_starts_no_trial_once_its_parent_has_ended(
    call, user_task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = ["--storage", "sqlite:///tiny.db"]
    assert call("run", user_task, *storage, "--epochs", 1, "--trials", 1) == 0
    with (tmp_path / "empty").open("wb+") as ended:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=ended.fileno))
        assert call("resume", *storage, "--task", user_task, "--trials", 2, "--quiet", "--helper") == 0
    states = [trial.state.name for trial in load_study(open_storage("sqlite:///tiny.db")).trials]
    assert states.count("COMPLETE") == 1


def test_sigterm_ends_a_run_as_ctrl_c_does(
    call, capsys, user_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "_evaluate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert call("run", user_task, "--storage", "sqlite:///tiny.db", "--epochs", 1, "--trials", 1) == 130
    assert "stopped; `petra resume` runs the interrupted trial again" in capsys.readouterr().err
    study = load_study(open_storage("sqlite:///tiny.db"))
    assert study.trials[0].state.name == "FAIL"
    assert finished_trials(study) == []


def _after_another_worker(evaluate: Callable[[Objective, Trial], tuple[float, ...]]) -> Any:
    """This process goes on only once another has signed a trial: without it, it might do them all."""

    def wait_and_evaluate(objective: Objective, trial: Trial) -> tuple[float, ...]:
        values = evaluate(objective, trial)
        for _ in range(600):
            workers = [other.user_attrs.get(trial_record.WORKER) for other in trial.study.trials]
            if len({worker["pid"] for worker in workers if worker}) > 1:
                return values
            time.sleep(0.1)
        raise AssertionError("no other worker took a trial")

    return wait_and_evaluate


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_task_of_a_stored_study_takes_its_models_from_the_given_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = sys.modules[stored_task.__module__]  # the package has a command of the same name
    monkeypatch.setattr(module, "task_of", lambda source, cache: (source.name, cache))
    specification = specification_with(task=TaskSource("digits"))
    for given, expected in ((None, Path(specification.cache)), (Path("own"), Path("own"))):
        assert stored_task(specification, None, None, None, given) == ("digits", expected)
