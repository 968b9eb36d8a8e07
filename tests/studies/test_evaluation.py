"""The command that replays a recorded search."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from petra_optuna.samplers import fail_orphans
from petra_optuna.study import trial_record
from studies.benchmarks.evaluation import best_by_level, finished


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
    assert [trial.params["x"] for trial in finished(study)] == [0, 1, 2, 3, 4]
    assert [trial.number for trial in finished(study)] == [0, 5, 2, 3, 4]


def test_the_best_of_a_size_is_the_best_of_all_that_are_no_larger() -> None:
    files = [(0.9, 1.0, 1.0, 500.0), (0.8, 1.0, 1.0, 200.0), (0.7, 1.0, 1.0, 100.0)]
    assert best_by_level(files, 1000) == [0.8, 0.7, None]
