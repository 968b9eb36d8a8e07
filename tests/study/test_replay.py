"""Replaying a recorded search."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from support.former_names import former_params

from petra_optuna.database import open_storage
from petra_optuna.errors import StudyError
from petra_optuna.operations import Prune, Train
from petra_optuna.pipeline import Pipeline, SearchSpace, distributions, encode, suggest
from petra_optuna.samplers import fail_orphans
from petra_optuna.study import recorded_trials, replay_study, trial_record

SPACE = SearchSpace((Prune, Train))


def test_a_run_that_was_cut_off_keeps_the_order_of_its_pipelines() -> None:
    """Else each trial after it would be compared with another pipeline's."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for number in range(5):
        study.enqueue_trial({"x": number})
    for number in range(5):
        trial = study.ask()
        value = trial.suggest_int("x", 0, 9)
        if number == 1:
            fail_orphans(study, lambda running: True)
        elif number == 2:
            trial.set_user_attr(trial_record.FAILURE, "it did not work")
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)
    again = study.ask()
    again.suggest_int("x", 0, 9)
    study.tell(again, 1.0)
    assert [trial.params["x"] for trial in recorded_trials(study)] == [0, 1, 2, 3, 4]
    assert [trial.number for trial in recorded_trials(study)] == [0, 5, 2, 3, 4]


def test_a_replay_holds_the_pipelines_of_the_search_once(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/search.db")
    search = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(0))
    search.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    for _ in range(2):  # the second time as after an interruption
        replay = replay_study(search, "again", SPACE)
        assert len(replay.trials) == 3
    replay.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert [trial.params for trial in recorded_trials(replay)] == [trial.params for trial in search.trials]


def test_a_replay_runs_the_pipelines_that_an_earlier_release_stored_by_other_names(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/search.db")
    search = optuna.create_study(storage=storage)
    pipeline = Pipeline((Prune(removed=0.3),))
    params = encode(pipeline, SPACE)
    search.add_trial(
        optuna.create_trial(
            value=1.0,
            params=former_params(params, SPACE),
            distributions=former_params(distributions(params, SPACE), SPACE),
        )
    )
    replay = replay_study(search, "again", SPACE)
    assert suggest(replay.ask(), SPACE) == pipeline


def test_a_search_in_memory_cannot_be_replayed() -> None:
    with pytest.raises(StudyError, match="no database"):
        replay_study(optuna.create_study(), "again", SPACE)
