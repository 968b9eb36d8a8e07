from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from support import toy_search
from support.toy_space import BOUNDS, DIRECTIONS, FREE, Cut, Fit, objective

from petra_optuna.pipeline import Pipeline, encode
from petra_optuna.samplers import (
    MAX_RETRIES,
    PetraSampler,
    fail_orphans,
    finished_trials,
    mark_for_rerun,
    plan_indices,
    plan_of,
    repeated_rerun,
    retry_stale_trial,
    superseded,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS = 20


def _study() -> optuna.Study:
    study = optuna.create_study(
        directions=DIRECTIONS, sampler=PetraSampler(FREE, seed=3, population_size=6, candidates=4)
    )
    study.set_user_attr("petra:bounds", BOUNDS)
    return study


def _search(url: str, space: str, kill_at: int = -1, stage: str = "end", hash_seed: str = "0") -> int:
    folder = Path(toy_search.__file__)
    command = [sys.executable, str(folder), url, str(TRIALS), str(kill_at), stage, space]
    env = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(command, env=env, check=False).returncode


def _story(study: optuna.Study) -> list[tuple[Any, ...]]:
    """Everything that the search decided, by plan index; trial numbers are replaced by plan indices."""
    indices = plan_indices(study.trials)
    story = []
    for trial in finished_trials(study):
        plan = plan_of(trial)
        origin = None
        if plan is not None:
            parent = None if plan.parent is None else indices[plan.parent]
            origin = (plan.operator, parent, plan.hash, plan.depth, plan.note)
        story.append((indices[trial.number], trial.state.name, trial.params, trial.values, origin))
    return sorted(story, key=lambda entry: int(entry[0]))


@pytest.mark.parametrize("space", ["free", pytest.param("untrained", marks=pytest.mark.slow)])
def test_a_search_killed_again_and_again_equals_one_never_killed(space: str, tmp_path: Path) -> None:
    uninterrupted = _uninterrupted(space, tmp_path)
    url = f"sqlite:///{tmp_path}/study.db"
    # Trial numbers: 0 is a control, 8 is killed before its plan and its re-run 9 between two parameters.
    kills = [(0, "end"), (8, "start"), (9, "middle"), (15, "end"), (19, "middle")]
    for count, (number, stage) in enumerate(kills):
        assert _search(url, space, number, stage, hash_seed=str(count)) == -signal.SIGKILL
    assert _search(url, space, hash_seed="77") == 0
    study = optuna.load_study(study_name="toy", storage=url)
    assert _story(study) == uninterrupted
    assert superseded(study.trials) == {number for number, _ in kills}
    assert len(study.trials) == TRIALS + len(kills)


def _uninterrupted(space: str, folder: Path) -> list[tuple[Any, ...]]:
    story = _story(toy_search.search(f"sqlite:///{folder}/whole.db", TRIALS, -1, "", space))
    assert [entry[0] for entry in story] == list(range(TRIALS))
    assert {"FAIL", "COMPLETE"} == {entry[1] for entry in story}
    assert sum(entry[4] is not None and entry[4][0] is not None for entry in story) >= 10
    return story


def test_a_rerun_inherits_index_plan_and_what_was_enqueued_and_nothing_else() -> None:
    study = _study()
    study.enqueue_trial(encode(Pipeline((Cut(), Fit())), FREE))
    for stale in (study.ask(), study.ask()):
        objective(stale)
        stale.set_constraint("size", 1.0)
        stale.set_user_attr("petra:failure", "stale")
    assert fail_orphans(study, lambda trial: True) == [0, 1]
    assert [trial.state for trial in study.trials[:2]] == [TrialState.FAIL] * 2
    study.optimize(objective, n_trials=2)
    for killed, rerun in zip(study.trials[:2], study.trials[2:], strict=True):
        assert rerun.params == killed.params
        assert rerun.constraints == {}
        assert rerun.user_attrs == {}
        assert rerun.state == TrialState.COMPLETE
    assert plan_of(study.trials[3]) == plan_of(study.trials[1])
    assert plan_indices(study.trials) == {0: 0, 1: 1, 2: 0, 3: 1}
    assert [trial.number for trial in finished_trials(study)] == [2, 3]


def test_only_orphans_are_failed_and_only_once() -> None:
    study = _study()
    for _ in range(3):
        objective(study.ask())
    assert fail_orphans(study, lambda trial: trial.number == 1) == [1]
    assert fail_orphans(study, lambda trial: trial.number == 1) == []
    states = [trial.state.name for trial in study.trials]
    assert states == ["RUNNING", "FAIL", "RUNNING", "WAITING"]


def test_of_two_reruns_that_two_processes_enqueue_at_once_the_first_counts(tmp_path: Path) -> None:
    """The second process has looked for a re-run when the first one enqueues it, and enqueues its own."""
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="toy", directions=DIRECTIONS).set_user_attr(
        "petra:bounds", BOUNDS
    )
    first, second = (optuna.load_study(study_name="toy", storage=url) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        first.optimize(_interrupted, n_trials=1)
    claimed: list[list[int]] = []
    add = second.add_trial

    def overtaken(trial: FrozenTrial) -> None:
        claimed.append(fail_orphans(first, lambda trial: True))
        add(trial)

    second.add_trial = overtaken  # type: ignore[method-assign]
    claimed.append(fail_orphans(second, lambda trial: True))
    assert claimed == [[0], []]
    assert [trial.state.name for trial in first.trials] == ["FAIL", "WAITING", "FAIL"]
    first.sampler = PetraSampler(FREE, seed=3, population_size=6, candidates=4)
    first.optimize(objective, n_trials=2)
    assert [trial.number for trial in finished_trials(first)] == [1, 3]
    assert fail_orphans(first, lambda trial: True) == fail_orphans(second, lambda trial: True) == []


def _interrupted(trial: optuna.Trial) -> tuple[float, float]:
    objective(trial)
    mark_for_rerun(trial)
    raise KeyboardInterrupt


def test_whoever_runs_the_later_of_two_reruns_finds_the_earlier() -> None:
    study = _study()
    objective(study.ask())
    for _ in range(2):  # by processes of an earlier release
        retry = {"of": 0, "index": 0, "attempt": 1}
        study.add_trial(
            optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"petra:retry": retry})
        )
    assert [repeated_rerun(study, trial) for trial in study.trials] == [None, None, 1]
    study.tell(0, state=TrialState.FAIL)
    study.optimize(objective, n_trials=3)
    assert [trial.number for trial in finished_trials(study)] == [1, 3]


def test_a_rerun_lost_between_two_steps_is_enqueued_later(monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study()
    objective(study.ask())

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "add_trial", dies)
        with pytest.raises(KeyboardInterrupt):
            fail_orphans(study, lambda trial: True)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
    assert fail_orphans(study, lambda trial: True) == [0]
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]


def test_a_trial_that_is_interrupted_can_ask_to_be_run_again() -> None:
    study = _study()
    with pytest.raises(KeyboardInterrupt):
        study.optimize(_interrupted, n_trials=1)
    assert finished_trials(study) == []
    assert fail_orphans(study, lambda trial: True) == [0]
    study.optimize(objective, n_trials=1)
    assert study.trials[1].params == study.trials[0].params


def test_a_pipeline_that_kills_every_process_is_given_up_and_counts_as_failed() -> None:
    study = _study()
    for attempt in range(MAX_RETRIES + 1):
        objective(study.ask())
        assert fail_orphans(study, lambda trial: True) == ([attempt] if attempt < MAX_RETRIES else [])
    assert fail_orphans(study, lambda trial: True) == []
    assert {trial.state for trial in study.trials} == {TrialState.FAIL}
    assert [trial.number for trial in finished_trials(study)] == [MAX_RETRIES]
    study.optimize(objective, n_trials=1)
    assert plan_indices(study.trials)[MAX_RETRIES + 1] == 1


def test_the_heartbeat_calls_back_with_the_killed_trial() -> None:
    study = _study()
    trial = study.ask()
    objective(trial)
    study.tell(trial, state=TrialState.FAIL)
    retry_stale_trial(study, study.trials[0])
    assert superseded(study.trials) == {0}
    study.optimize(objective, n_trials=1)
    assert study.trials[1].params == study.trials[0].params
