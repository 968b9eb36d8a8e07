"""Trials that are read at once are those that Optuna reads one by one."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from petra_optuna.database import open_storage
from petra_optuna.samplers import SharedStorage

pytestmark = pytest.mark.filterwarnings("ignore:.*is experimental", "ignore:.*deprecated")


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """Trials in every state, with infinite values and all kinds of parameters; another study has some too."""
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    made = optuna.create_study(storage=storage, study_name="ours", directions=["minimize", "maximize"])
    other = optuna.create_study(storage=storage, study_name="theirs")
    for index in range(12):
        trial = made.ask()
        trial.suggest_float("x", 1e-3, 1.0, log=True)
        trial.suggest_categorical("kind", ["a", None, 1, True])
        if index % 2:
            trial.suggest_int("n", 1, 9, step=2)
        trial.set_user_attr("list", [index, {"deep": None}])
        trial.set_constraint("size", -1.0)
        other.tell(other.ask(), 1.0)
        if index % 4 == 0:
            made.tell(trial, (float("inf"), -float(index)))
        elif index % 4 == 1:
            made.tell(trial, state=TrialState.FAIL)
        elif index % 4 == 2:
            made.tell(trial, (0.5, float("-inf")))
    made.enqueue_trial({"x": 0.5})
    return made


def _backend(study: optuna.Study) -> SharedStorage:
    backend = study._storage._backend  # type: ignore[attr-defined]
    assert isinstance(backend, SharedStorage)
    return backend


def test_the_trials_are_those_of_optuna(study: optuna.Study) -> None:
    backend = _backend(study)
    ours = backend._get_trials(study._study_id, None, set(), -1)
    assert ours == RDBStorage._get_trials(backend, study._study_id, None, set(), -1)
    assert len(ours) == 13
    assert {trial.state for trial in ours} == set(TrialState) - {TrialState.PRUNED}


def test_a_part_is_the_part_of_optuna(study: optuna.Study) -> None:
    backend = _backend(study)
    ids = [trial._trial_id for trial in study.get_trials()]
    for included, newer in ((set(ids[:3]), ids[8]), (set(), ids[5]), (set(ids), ids[-1])):
        ours = backend._get_trials(study._study_id, None, included, newer)
        assert ours == RDBStorage._get_trials(backend, study._study_id, None, included, newer)


def test_intermediate_values_are_read(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/steps.db"))
    trial = study.ask()
    for step, value in enumerate((1.0, float("nan"), float("inf"))):
        trial.report(value, step)
    study.tell(trial, 1.0)
    (read,) = _backend(study)._get_trials(study._study_id, None, set(), -1)
    assert repr(read.intermediate_values) == "{0: 1.0, 1: nan, 2: inf}"
