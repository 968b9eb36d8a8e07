"""The loop of one worker: it loses no trial, ends not too early, and survives that a trial is taken away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from support.toy_study import elsewhere, ended, new_study, opened, signed

from petra_optuna.errors import MeasurementFailed, StudyError
from petra_optuna.samplers import fail_orphans, finished_trials, record_heartbeat
from petra_optuna.study import Stop, TrialRecord, liveness
from petra_optuna.study.trial_loop import TrialLoop

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore:.*is experimental")


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return new_study(f"sqlite:///{tmp_path}/study.db")


def _loop(
    study: optuna.Study, trials: int, *callbacks: Callable[[optuna.Study, FrozenTrial], None]
) -> TrialLoop:
    return TrialLoop(study, Stop(trials=trials), callbacks)


def _states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def _take_over(trial: optuna.Trial) -> None:
    """What another process does that takes this one for dead."""
    assert fail_orphans(trial.study, lambda running: True) == [trial.number]


@pytest.mark.parametrize("ends", ["with values", "with an attribute", "with a failure", "with an error"])
def test_a_worker_whose_trial_was_taken_over_says_so_and_goes_on(
    study: optuna.Study, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        values = signed(trial)
        if trial.number == 1:
            _take_over(trial)
            if ends == "with an attribute":
                TrialRecord(trial).store_failure("it failed here too")
            if ends == "with a failure":
                raise MeasurementFailed("it failed here too")
            if ends == "with an error":
                raise StudyError("the disk is full")
        return values

    with caplog.at_level(logging.WARNING):
        _loop(study, 4).run(objective)
    assert caplog.messages == ["trial 1 was taken over by another process; going on with the next"]
    assert _states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert [trial.number for trial in finished_trials(study)] == [0, 2, 3, 4]


def test_ctrl_c_ends_the_run_also_in_a_trial_that_was_taken_over(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        signed(trial)
        _take_over(trial)
        try:
            raise KeyboardInterrupt
        finally:
            TrialRecord(trial).store_failure("this hides Ctrl-C")

    with pytest.raises(KeyboardInterrupt):
        _loop(study, 4).run(objective)


@pytest.mark.parametrize(
    "error", [ValueError("a fault of the objective"), AssertionError(), StudyError("full")]
)
def test_an_error_of_the_objective_ends_the_run(study: optuna.Study, error: Exception) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        signed(trial)
        raise error

    with pytest.raises(type(error)) as raised:
        _loop(study, 4).run(objective)
    assert raised.value is error
    assert _states(study) == ["FAIL"]


def test_the_later_of_two_reruns_is_not_evaluated(study: optuna.Study) -> None:
    with pytest.raises(KeyboardInterrupt):
        _loop(study, 9).run(_interrupted)
    for _ in range(2):  # two processes enqueue one, and a third takes both before they look again
        retry = {"of": 0, "index": 0, "attempt": 1}
        study.add_trial(
            optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"petra:retry": retry})
        )
    evaluated = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        evaluated.append(trial.number)
        return signed(trial)

    _loop(study, 2).run(objective)
    assert evaluated == [1, 3]
    assert TrialRecord(study.trials[2]).failure == "trial 1 already runs the interrupted trial again"


def _interrupted(trial: optuna.Trial) -> tuple[float, float]:
    signed(trial)
    raise KeyboardInterrupt


def test_a_callback_may_end_the_run(study: optuna.Study) -> None:
    def enough(study: optuna.Study, trial: FrozenTrial) -> None:
        if trial.number == 1:
            study.stop()

    _loop(study, 9, enough).run(signed)
    assert len(study.trials) == 2


def test_no_trial_starts_after_the_time_is_over(study: optuna.Study) -> None:
    TrialLoop(study, Stop(timeout_s=1e-9), ()).run(signed)
    assert len(study.trials) == 0


def _die_elsewhere(study: optuna.Study) -> None:
    """Leave a RUNNING trial of a worker that nobody sees."""
    trial = study.ask()
    signed(trial)
    TrialRecord(trial).store_worker(elsewhere())
    record_heartbeat(study, study.get_trials(deepcopy=False)[trial.number])


def test_a_dead_trial_of_another_machine_is_run_again_before_the_run_ends(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    _loop(study, 3).run(signed)
    _die_elsewhere(study)
    other = opened(study._storage._backend.url)  # type: ignore[attr-defined]
    monkeypatch.setattr(liveness.time, "sleep", lambda _: monkeypatch.setattr(liveness, "STALE_S", -1))
    loop = _loop(other, 4)
    assert not loop.is_over()
    loop.run(signed)
    assert _states(study) == ["COMPLETE"] * 3 + ["FAIL", "COMPLETE"]


def test_a_living_trial_of_another_machine_counts(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    _loop(study, 3).run(signed)
    _die_elsewhere(study)
    beats = iter(range(100))

    def another_beat(_seconds: float) -> None:
        monkeypatch.setattr(liveness, "heartbeats", lambda study: {3: liveness.Heartbeat(next(beats), 0.0)})

    monkeypatch.setattr(liveness.time, "sleep", another_beat)
    assert _loop(study, 4).is_over()


def test_finished_trials_that_suffice_are_not_waited_for(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    _loop(study, 3).run(signed)
    _die_elsewhere(study)
    monkeypatch.setattr(liveness.time, "sleep", lambda _: pytest.fail("it waited"))
    assert _loop(study, 3).is_over()


def test_the_trial_of_a_helper_that_died_is_run_again(study: optuna.Study) -> None:
    """The helper holds the last trial while its parent has nothing more to do."""
    loop = _loop(study, 3)
    helper = opened(study._storage._backend.url)  # type: ignore[attr-defined]
    running: list[optuna.Trial] = []

    def after_the_second(study: optuna.Study, trial: FrozenTrial) -> None:
        if trial.number == 1:
            running.append(helper.ask())
            signed(running[0])

    def helpers_end() -> None:
        if running:
            TrialRecord(running.pop()).store_worker(ended())

    TrialLoop(study, loop.stop, (after_the_second,)).run(signed, helpers_end)
    assert _states(study) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
