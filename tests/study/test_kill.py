"""SIGKILL in mid-trial, then ``petra resume`` with URL and name only; both measure shortly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from petra_optuna.database import open_storage
from petra_optuna.samplers import finished_trials, plan_indices, superseded
from petra_optuna.study import StudyRecord, trial_record
from petra_optuna.tasks import Mode

TESTS = Path(__file__).parents[1]
TRIALS = 3


def _petra(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, [str(TESTS), *sys.path]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "support.fast_measurement", *arguments], cwd=folder, env=environment
    )


def _states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("mode", ["pretrained", pytest.param("untrained", marks=pytest.mark.slow)])
def test_a_killed_study_goes_on_and_loses_nothing(tmp_path: Path, mode: Mode) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    run = [
        "run",
        "support.small_task:make",
        "--storage",
        url,
        "--study",
        "tiny",
        "--trials",
        str(TRIALS),
        "--epochs",
        "1",
    ]
    process = _petra(tmp_path, *run, "--cache", str(tmp_path / "cache"), "--mode", mode)
    study = _wait_for_second_trial(url, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = study.get_trials()
    assert [trial.state for trial in before[:2]] == [TrialState.COMPLETE, TrialState.RUNNING]

    resume = _petra(
        tmp_path,
        "resume",
        "--storage",
        url,
        "--study",
        "tiny",
        "--task",
        "support.small_task:make",
        "--quiet",
    )
    assert resume.wait() == 0

    after = study.get_trials()
    assert after[0] == before[0]
    assert after[1].state == TrialState.FAIL
    assert {trial.number for trial in after if superseded(after) and trial.number in superseded(after)} == {1}
    assert len(finished_trials(study)) == TRIALS
    again = next(trial for trial in after if trial.system_attrs.get("petra:retry", {}).get("of") == 1)
    assert plan_indices(after)[again.number] == plan_indices(after)[1] == 1
    assert TrialState.RUNNING not in _states(study)
    assert StudyRecord(study).specification.mode == mode
    trained = [trial.params["length"] > 0 for trial in finished_trials(study)]
    assert all(trained) is (mode == "untrained")


def _wait_for_second_trial(url: str, process: subprocess.Popen[bytes]) -> optuna.Study:
    database = Path(url.removeprefix("sqlite:///"))
    for _ in range(600):
        assert process.poll() is None, "the run ended before it could be killed"
        if database.is_file() and "tiny" in optuna.get_all_study_names(open_storage(url)):
            study = optuna.load_study(study_name="tiny", storage=open_storage(url))
            if _states(study)[:2] == [TrialState.COMPLETE, TrialState.RUNNING]:
                running = study.get_trials(deepcopy=False)[1]
                if trial_record.WORKER in running.user_attrs:
                    return study
        time.sleep(0.1)
    raise AssertionError("the second trial never started")
