"""Eight processes share a study: nothing is lost, doubled or seen differently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from support import toy_workers
from support.postgres import new_database
from support.toy_space import BOUNDS, DIRECTIONS, FREE, objective

from petra_optuna.database import open_storage
from petra_optuna.evolution import Bounds
from petra_optuna.samplers import fail_orphans, finished_trials, plan_indices, plan_of
from petra_optuna.samplers.history import History
from petra_optuna.samplers.priors import StudyPriors
from petra_optuna.study import load_study

optuna.logging.set_verbosity(optuna.logging.ERROR)
PROCESSES, EACH = 8, 4


def _create(url: str) -> None:
    """A study whose first trial was killed and is to be run again."""
    storage = open_storage(url)
    study = optuna.create_study(
        storage=storage, study_name="many", directions=DIRECTIONS, sampler=toy_workers.sampler()
    )
    study.set_user_attr("petra:bounds", BOUNDS)
    objective(study.ask())
    assert fail_orphans(study, lambda trial: True) == [0]
    storage.engine.dispose()


def _run(url: str) -> list[list[list[object]]]:
    command = [sys.executable, "-m", toy_workers.__name__, url, str(PROCESSES), str(EACH)]
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    followed: list[list[list[object]]] = json.loads(done.stdout.splitlines()[-1])
    return followed


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_plan_and_no_credit_is_lost_or_doubled(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    if database == "postgresql":
        url = new_database(request.getfixturevalue("postgres_url"), "many_processes")
    _create(url)
    followed = _run(url)

    study = load_study(open_storage(url))
    trials, indices = finished_trials(study), plan_indices(study.trials)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * PROCESSES * EACH
    plans = [plan for trial in trials if (plan := plan_of(trial)) is not None]
    assert [plan.params for plan in plans] == [trial.params for trial in trials]
    assert [plan.index for plan in plans] == [indices[trial.number] for trial in trials]
    assert sorted(plan.index for plan in plans) == list(range(PROCESSES * EACH))

    priors = StudyPriors(Bounds.from_dict(BOUNDS))
    read = History(DIRECTIONS, priors, space=FREE, size=toy_workers.POPULATION)
    read.update(study.trials)
    credits = read.credited_plans(PROCESSES * EACH)
    assert [plan for plan, _ in credits] == sorted(
        (plan for plan in plans if plan.operator is not None), key=lambda plan: plan.index
    )
    assert credits
    assert followed == [[[repr(plan), credit] for plan, credit in credits]] * PROCESSES
