"""What a sampler remembers changes no plan."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import optuna
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from support.toy_space import BOUNDS, DIRECTIONS, FREE, landscape

from petra_optuna.evolution import Bounds
from petra_optuna.pipeline import Pipeline, distributions, encode, suggest
from petra_optuna.samplers import PetraSampler, plan_of, retry_stale_trial
from petra_optuna.samplers.history import History
from petra_optuna.samplers.population import Population
from petra_optuna.samplers.priors import StudyPriors

optuna.logging.set_verbosity(optuna.logging.ERROR)

SETTINGS: list[dict[str, Any]] = [
    {},
    {"survival": "rank", "avoid_duplicates": False, "adapt_depth": False},
    {"genes": "tpe", "strength": "adaptive", "second_mutation": 0.3, "immigrants": 0.2, "rates": "thompson"},
    {"parents": "tournament", "random_share": 0.25},
    {"candidates": 3},
]
NO_SHRINK = (Phase.explicit, Phase.generate)  # an example is a whole study: shrinking takes minutes
STEPS = ("ask", "ask", "tell", "tell", "fail", "prune", "break", "add", "enqueue", "kill", "drop")


def _study(bounds: bool = True, **options: Any) -> optuna.Study:
    study = optuna.create_study(
        directions=DIRECTIONS,
        sampler=PetraSampler(FREE, **{"seed": 1, "population_size": 4, "candidates": 1, **options}),
    )
    if bounds:
        study.set_user_attr("petra:bounds", BOUNDS)
    return study


def _cold_plan(study: optuna.Study, trial: optuna.Trial) -> dict[str, Any]:
    """The plan of a copy in another process, whose sampler remembers nothing."""
    twin = pickle.loads(pickle.dumps(study))
    suggest(optuna.Trial(twin, trial._trial_id), FREE)
    return dict(twin.trials[trial.number].system_attrs["petra:plan"])


class _Run:
    """A study in which anything happens in any order, as with many workers."""

    def __init__(self, study: optuna.Study, data: st.DataObject) -> None:
        self.study, self.data = study, data
        self.running: list[tuple[optuna.Trial, Pipeline]] = []

    def step(self, name: str) -> None:
        if name == "ask":
            trial = self.study.ask()
            cold = _cold_plan(self.study, trial)
            pipeline = suggest(trial, FREE)
            assert self.study.trials[trial.number].system_attrs["petra:plan"] == cold
            self.running.append((trial, pipeline))
        elif name == "add":
            params = encode(Pipeline.from_notation("Ct-Ft-Pk", FREE.operations), FREE)
            kinds = distributions(params, FREE)
            self.study.add_trial(create_trial(params=params, distributions=kinds, values=(0.9, 40.0)))
        elif name == "enqueue":
            self.study.enqueue_trial({"length": 1, "n0.op": "fit"})
        elif name == "drop":
            self.study.sampler = pickle.loads(pickle.dumps(self.study.sampler))
        elif self.running:
            self._end(name, *self.running.pop(self.data.draw(st.integers(0, len(self.running) - 1))))

    def _end(self, name: str, trial: optuna.Trial, pipeline: Pipeline) -> None:
        if name in ("tell", "break"):
            trial.set_constraint("size", landscape(pipeline)[1] - (10 if name == "break" else 1e9))
            self.study.tell(trial, landscape(pipeline))
            return
        self.study.tell(trial, state=TrialState.PRUNED if name == "prune" else TrialState.FAIL)
        if name == "kill":
            # The trial counts as failed until its re-run is enqueued.
            suggest(self.study.ask(), FREE)
            retry_stale_trial(self.study, self.study.trials[trial.number])


@pytest.mark.parametrize("options", SETTINGS, ids=lambda options: "-".join(options) or "default")
@given(data=st.data(), bounds=st.booleans())
@settings(max_examples=12, deadline=None, phases=NO_SHRINK)
def test_a_plan_from_what_is_remembered_is_that_of_a_fresh_reading(
    options: dict[str, Any], data: st.DataObject, bounds: bool
) -> None:
    run = _Run(_study(bounds, **options), data)
    for name in data.draw(st.lists(st.sampled_from(STEPS), min_size=25, max_size=50)):
        run.step(name)


@given(data=st.data())
@settings(max_examples=10, deadline=None, phases=NO_SHRINK)
def test_what_trials_say_does_not_depend_on_the_order_in_which_they_finish(data: st.DataObject) -> None:
    run = _Run(_study(), data)
    for name in data.draw(st.lists(st.sampled_from(STEPS[:8]), min_size=30, max_size=60)):
        run.step(name)
    trials = run.study.get_trials(deepcopy=False)
    sampler = run.study.sampler
    assert isinstance(sampler, PetraSampler)
    followed, read = (
        sampler._history(run.study),
        History(DIRECTIONS, StudyPriors(Bounds.from_dict(BOUNDS)), space=FREE, size=4),
    )
    read.update(trials)
    assert followed.finished == read.finished
    assert followed.credited_plans(99) == read.credited_plans(99)
    assert [followed.has_entered(n) for _, n in read.finished] == [
        read.has_entered(n) for _, n in read.finished
    ]
    assert followed.depth(9, 2) == read.depth(9, 2)


def test_copies_and_pickles_remember_nothing() -> None:
    study = _study()
    study.optimize(lambda trial: landscape(suggest(trial, FREE)), n_trials=20)
    sampler = study.sampler
    assert isinstance(sampler, PetraSampler)
    full = len(pickle.dumps(sampler))
    assert full == len(pickle.dumps(PetraSampler(FREE, seed=1, population_size=4)))
    assert copy.deepcopy(sampler)._cache is not sampler._cache
    assert pickle.loads(pickle.dumps(sampler))._seed == 1


def test_one_sampler_serves_several_studies() -> None:
    first, second = _study(), _study()
    second.sampler = first.sampler
    for _ in range(30):
        for study in (first, second):
            study.optimize(lambda trial: landscape(suggest(trial, FREE)), n_trials=1)
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]


def test_a_study_that_takes_the_place_of_another_is_read_anew(tmp_path: Any) -> None:
    """SQLite gives a new study the number of the one that was deleted."""
    url, sampler = f"sqlite:///{tmp_path}/study.db", PetraSampler(FREE, seed=1, population_size=4)
    storage = optuna.storages.get_storage(url)
    stories = []
    for _ in range(2):
        study = optuna.create_study(study_name="s", storage=storage, directions=DIRECTIONS, sampler=sampler)
        study.set_user_attr("petra:bounds", BOUNDS)
        study.optimize(lambda trial: landscape(suggest(trial, FREE)), n_trials=7)
        stories.append([trial.params for trial in study.trials])
        optuna.delete_study(study_name="s", storage=storage)
    assert stories[0] == stories[1]


def test_threads_plan_one_after_the_other() -> None:
    """Plans made at the same moment must know of each other, or they would repeat one another."""
    study = _study(population_size=2)
    study.optimize(lambda trial: landscape(suggest(trial, FREE)), n_trials=10)
    trials, gate = [study.ask() for _ in range(12)], threading.Barrier(12)

    def plan(trial: optuna.Trial) -> None:
        gate.wait()
        suggest(trial, FREE)

    threads = [threading.Thread(target=plan, args=(trial,)) for trial in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hashes = [plan.hash for trial in study.trials if (plan := plan_of(trial)) is not None]
    assert len(set(hashes)) == len(hashes) == 22


def test_planning_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study()
    study.optimize(lambda trial: landscape(suggest(trial, FREE)), n_trials=60)
    ranked: list[int] = []
    rank = Population.rank

    def counted(self: Any, key: Any, *rest: Any) -> None:
        ranked.append(key[1])
        rank(self, key, *rest)

    monkeypatch.setattr(Population, "rank", counted)
    study.optimize(lambda trial: landscape(suggest(trial, FREE)), n_trials=10)
    assert ranked == list(range(59, 69))
