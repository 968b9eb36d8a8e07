"""The same seed gives the same search: in any process, in any number of pieces, in any storage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from support.postgres import new_database
from support.toy_space import BOUNDS, DIRECTIONS, FREE, objective

from petra_optuna.database import open_storage
from petra_optuna.samplers import PetraSampler, plan_of

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS = 40
RICH: dict[str, Any] = {
    "population_size": 6,
    "rates": "thompson",
    "parents": "tournament",
    "genes": "tpe",
    "strength": "adaptive",
    "second_mutation": 0.3,
    "immigrants": 0.1,
    "candidates": 3,
}
"""Every ingredient that draws random numbers of its own."""


def _story(study: optuna.Study) -> list[dict[str, Any]]:
    """What the search decided and saw; floats as text, to the last bit."""
    story = []
    for trial in study.trials:
        plan = plan_of(trial)
        assert plan is not None
        params = {name: repr(value) for name, value in trial.params.items()}
        story.append({"params": params, "values": repr(trial.values), "plan": repr(plan)})
    return story


IN_A_PROCESS = f"""
import json, optuna
from support.toy_space import BOUNDS, DIRECTIONS, FREE, objective
from petra_optuna.samplers import PetraSampler
optuna.logging.set_verbosity(optuna.logging.ERROR)

def branching(trial):
    if trial.suggest_categorical("kind", ["near", "far"]) == "near":
        return sum(trial.suggest_float(name, -10, 10) ** 2 for name in "xyz"), 50.0
    return trial.suggest_int("steps", 1, 40), 40.0

for space, function in ((FREE, objective), (None, branching)):
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(space, seed=5, **{RICH!r}))
    study.set_user_attr("petra:bounds", BOUNDS)
    study.optimize(function, n_trials=40)
    print(json.dumps([[trial.params, trial.system_attrs["petra:plan"]] for trial in study.trials]))
"""


def test_another_process_with_another_hash_seed_runs_the_same_search() -> None:
    def run(hash_seed: str) -> list[Any]:
        env = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        command = [sys.executable, "-c", IN_A_PROCESS]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    first, second = run("1"), run("2")
    assert first == second
    assert [len(trials) for trials in first] == [40, 40]
    assert all(any(plan["operator"] for _, plan in trials) for trials in first)


@pytest.fixture(scope="module")
def whole() -> list[dict[str, Any]]:
    """The search in one piece, in memory."""
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(FREE, seed=5, **RICH))
    study.set_user_attr("petra:bounds", BOUNDS)
    study.optimize(objective, n_trials=TRIALS)
    return _story(study)


def test_reseeding_leaves_the_plans_as_they_are(whole: list[dict[str, Any]]) -> None:
    """Optuna reseeds the sampler of each worker; here the plan index tells their plans apart."""
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(FREE, seed=5, **RICH))
    study.set_user_attr("petra:bounds", BOUNDS)
    for _ in range(TRIALS):
        study.sampler.reseed_rng()
        study.optimize(objective, n_trials=1)
    assert _story(study) == whole


@pytest.fixture
def reopen(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> Callable[[], BaseStorage]:
    """Opens one store again and again, each time as if in a new process."""
    if kind == "journal":
        return lambda: JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    url = f"sqlite:///{tmp_path}/study.db"
    if kind == "postgresql":
        url = new_database(request.getfixturevalue("postgres_url"), tmp_path.name)
    return lambda: open_storage(url)


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [
        *(pytest.param(kind, [15, 25], id=f"{kind}-15+25") for kind in ("sqlite", "postgresql", "journal")),
        pytest.param("sqlite", [1] * TRIALS, id="sqlite-one by one"),
        *(
            pytest.param(kind, [1] * TRIALS, id=f"{kind}-one by one", marks=pytest.mark.slow)
            for kind in ("postgresql", "journal")
        ),
    ],
)
def test_a_search_in_pieces_equals_the_whole_bit_for_bit(
    pieces: list[int], reopen: Callable[[], BaseStorage], whole: list[dict[str, Any]]
) -> None:
    """Each piece has a new study object and a new sampler, the long ones a new storage object too."""
    storage = reopen()
    created = optuna.create_study(storage=storage, study_name="pieces", directions=DIRECTIONS)
    created.set_user_attr("petra:bounds", BOUNDS)
    for count in pieces:
        storage = reopen() if count > 1 else storage
        sampler = PetraSampler(FREE, seed=5, **RICH)
        study = optuna.load_study(storage=storage, study_name="pieces", sampler=sampler)
        study.optimize(objective, n_trials=count)
    assert len(whole) == TRIALS
    assert _story(optuna.load_study(storage=reopen(), study_name="pieces")) == whole
