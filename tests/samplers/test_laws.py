"""Laws of the search: which operators it comes to prefer, what it plans, what it is drawn to."""

from __future__ import annotations

import dataclasses
import heapq
import warnings
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from optuna.samplers import PartialFixedSampler
from support.toy_space import BOUNDS, DIRECTIONS, FREE, IMPLYING, UNTRAINED, Cut, landscape

from petra_optuna.evolution import MUTATIONS, Mutation, change_value, draw_value, random_pipeline
from petra_optuna.pipeline import Pipeline, SearchSpace, decode, encode, suggest
from petra_optuna.pipeline.fields import Fielded, declared_fields
from petra_optuna.samplers import PetraSampler, plan_of

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

CUTS = SearchSpace((Cut,), max_length=1)
FIELDS = {field.name: field.distribution for field in declared_fields(Cut)}
START, WINDOW, FLOOR = 8, 50, 0.2
LEAST, EVEN = FLOOR / len(FIELDS), 1 / len(FIELDS)


class Turn(Mutation):
    """Another value for one field of the only node; possible on every parent."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name  # type: ignore[misc]

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        (node,) = pipeline.nodes
        changed = change_value(FIELDS[self.name], node.values()[self.name], rng)
        return dataclasses.replace(pipeline, nodes=(dataclasses.replace(node, **{self.name: changed}),))


OPTIONS: dict[str, Any] = {
    "population_size": START,
    "random_share": 0.25,
    "mutations": tuple(map(Turn, FIELDS)),
    "rates": "matching",
    "floor": FLOOR,
    "window": WINDOW,
    "survival": "hypervolume",
    "parents": "uniform",
    "genes": "random",
    "strength": "fixed",
    "second_mutation": 0.0,
    "immigrants": 0.0,
    "adapt_depth": False,
    "avoid_duplicates": False,
    "candidates": 1,
}


def _study(seed: int, space: SearchSpace | None = CUTS, **options: Any) -> optuna.Study:
    sampler = PetraSampler(space, **{"seed": seed, **OPTIONS, **options})
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    study.set_user_attr("petra:bounds", BOUNDS)
    return study


def _rates(study: optuna.Study) -> dict[str, float]:
    """What the next trial's operator would be drawn by."""
    sampler = study.sampler
    assert isinstance(sampler, PetraSampler)
    return dict(sampler.state(study).rates)


def _operator(trial: optuna.Trial) -> str | None:
    suggest(trial, CUTS)
    plan = plan_of(trial.study.get_trials(deepcopy=False)[trial.number])
    assert plan is not None
    return plan.operator


def _planted(
    useful: Callable[[int], Collection[str]], failing: str = "none"
) -> Callable[[optuna.Trial], tuple[float, float]]:
    """A trial is a new point of the front exactly when one of the useful operators made it."""

    def function(trial: optuna.Trial) -> tuple[float, float]:
        operator = _operator(trial)
        if operator == failing:
            raise ArithmeticError
        new = (trial.number * 0.618) % 1
        return (0.87 + 0.07 * new, 30 + 60 * new) if operator in useful(trial.number) else (0.86, 95.0)

    return function


@pytest.mark.parametrize("useful", FIELDS)
def test_the_useful_operator_is_preferred_within_sixty_trials(useful: str) -> None:
    study = _study(seed=1)
    study.optimize(_planted(lambda number: {useful}), n_trials=60)
    rates = _rates(study)
    assert rates[useful] > 2 * LEAST
    assert rates[useful] > 1.5 * EVEN
    assert all(LEAST < rate < EVEN for name, rate in rates.items() if name != useful)


@pytest.mark.parametrize("seed", range(3))
def test_a_new_useful_operator_overtakes_the_old_one_within_the_window(seed: int) -> None:
    switch = START + WINDOW
    study = _study(seed)
    function = _planted(lambda number: {"ratio" if number < switch else "share"})
    study.optimize(function, n_trials=switch)
    before = _rates(study)
    study.optimize(function, n_trials=WINDOW)
    after = _rates(study)
    assert before["ratio"] > 1.5 * EVEN > before["share"]
    assert after["share"] > 1.5 * EVEN > after["ratio"]


def test_where_nothing_helps_the_rates_stay_within_noise_of_uniform() -> None:
    def luck(seed: int) -> dict[str, float]:
        rng = np.random.default_rng(seed)

        def function(trial: optuna.Trial) -> tuple[float, float]:
            suggest(trial, CUTS)
            return 0.95 * rng.random(), 100 * rng.random()

        study = _study(seed)
        study.optimize(function, n_trials=60)
        return _rates(study)

    found = np.array([list(luck(seed).values()) for seed in range(8)])
    assert np.all(np.abs(found.mean(axis=0) - EVEN) < 0.3 * EVEN)
    assert np.all((found > LEAST) & (found < 2 * EVEN))


@pytest.mark.parametrize("mode", ["matching", "thompson"])
def test_an_operator_whose_children_fail_falls_to_the_floor_but_never_to_zero(mode: str) -> None:
    study = _study(seed=2, rates=mode)
    others = set(FIELDS) - {"width"}
    study.optimize(_planted(lambda number: others, failing="width"), n_trials=100, catch=(ArithmeticError,))
    assert LEAST <= _rates(study)["width"] < 2 * LEAST  # an imagined success keeps it above the floor itself
    later = [plan.operator for trial in study.trials[50:] if (plan := plan_of(trial)) is not None]
    assert 0 < later.count("width") < EVEN * len(later)


SLOWDOWN = 3


def _share_of_fast(seed: int, workers: int) -> float:
    """Share of the trials, in simulated time, whose ``ratio`` lies in the half that is evaluated fast."""
    study = _study(seed)
    running: list[tuple[float, int, optuna.Trial]] = []
    clock, fast = 0.0, []
    for number in range(100):
        if len(running) == workers:
            clock, _, done = heapq.heappop(running)
            study.tell(done, (0.9, 90.0))
        trial = study.ask()
        (node,) = suggest(trial, CUTS)
        fast.append(bool(node.values()["ratio"] < 0.5))
        heapq.heappush(running, (clock + (1 if fast[-1] else SLOWDOWN), number, trial))
    return float(np.mean(fast))


def test_asynchronous_workers_are_drawn_to_fast_regions_but_not_only_there(
    record_property: Callable[[str, object], None],
) -> None:
    """Fitness is flat: any preference comes from which trials are finished when parents are picked.

    It is strong in short searches: 0.5 of the trials are fast ones with one worker, 0.8 with eight where
    the slow half takes three times as long, 0.9 where it takes ten times as long.
    """
    shares = {
        workers: float(np.mean([_share_of_fast(seed, workers) for seed in range(8)])) for workers in (1, 8)
    }
    record_property("share of trials in the fast half", shares)
    assert 0.25 < shares[1] < 0.75  # drift alone
    assert shares[8] < 0.95


class _Watched(PetraSampler):
    """Remembers which parameters the plan left free."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.free: list[str] = []

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        self.free.append(param_name)
        return super().sample_independent(study, trial, param_name, param_distribution)


def test_held_values_around_a_search_of_pipelines() -> None:
    held = {"n1.op": "fit", "recipe.lr": 0.02, "convert.op": "squash"}
    sampler = _Watched(IMPLYING, seed=0, **OPTIONS | {"mutations": MUTATIONS, "avoid_duplicates": True})
    study = optuna.create_study(directions=DIRECTIONS, sampler=PartialFixedSampler(held, sampler))
    study.set_user_attr("petra:bounds", BOUNDS)
    study.optimize(lambda trial: landscape(suggest(trial, IMPLYING)), n_trials=60)
    plans = [plan_of(trial) for trial in study.trials]
    for trial, plan in zip(study.trials, plans, strict=True):
        assert all(trial.params[name] == value for name, value in held.items() if name in trial.params)
        assert plan is not None
        assert plan.params == trial.params
        assert plan.hash == decode(trial.params, IMPLYING).hash
    assert sampler.free == []
    assert len({plan.hash for plan in plans if plan is not None}) == 60
    assert sum(plan.operator is not None for plan in plans if plan is not None) > 20


def test_held_values_around_a_search_of_plain_parameters() -> None:
    def branching(trial: optuna.Trial) -> tuple[float, float]:
        if trial.suggest_categorical("kind", ["near", "far"]) == "near":
            return 0.9 - abs(trial.suggest_float("near.x", -1, 1)), trial.suggest_float("both", 20, 90)
        return trial.suggest_float("far.y", 0, 0.9), trial.suggest_float("both", 20, 90)

    study = _study(0, space=None, avoid_duplicates=True)
    study.optimize(branching, n_trials=30)
    assert {trial.params["kind"] for trial in study.trials} == {"near", "far"}
    study.sampler = PartialFixedSampler({"kind": "far", "both": 30.0}, study.sampler)
    study.optimize(branching, n_trials=30)
    later = study.trials[30:]
    assert {(trial.params["kind"], trial.params["both"]) for trial in later} == {("far", 30.0)}
    assert all(set(trial.params) == {"kind", "both", "far.y"} for trial in later)
    assert len({trial.params["far.y"] for trial in later}) > 20
    plans = [plan for trial in later if (plan := plan_of(trial)) is not None]
    assert all(plan.params.items() <= trial.params.items() for plan, trial in zip(plans, later, strict=True))
    assert any(plan.parent is not None for plan in plans)


ANY_OPTIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "population_size": st.integers(2, 9),
        "random_share": st.sampled_from([0.0, 0.25, 0.9]),
        "rates": st.sampled_from(["uniform", "matching", "thompson"]),
        "floor": st.sampled_from([0.0, 0.2, 1.0]),
        "window": st.sampled_from([1, 50]),
        "survival": st.sampled_from(["hypervolume", "rank"]),
        "parents": st.sampled_from(["uniform", "tournament"]),
        "genes": st.sampled_from(["random", "tpe"]),
        "strength": st.sampled_from(["fixed", "adaptive"]),
        "second_mutation": st.sampled_from([0.0, 0.5]),
        "immigrants": st.sampled_from([0.0, 0.3]),
        "adapt_depth": st.booleans(),
        "avoid_duplicates": st.booleans(),
        "candidates": st.sampled_from([1, 3]),
    }
)


@given(options=ANY_OPTIONS, space=st.sampled_from([FREE, IMPLYING, UNTRAINED]))
@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_every_plan_is_a_legal_pipeline_whatever_the_options_are(
    options: dict[str, Any], space: SearchSpace
) -> None:
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(space, **options))

    def function(trial: optuna.Trial) -> tuple[float, float]:
        pipeline = suggest(trial, space)
        if trial.number % 6 == 5:
            raise ArithmeticError
        return landscape(pipeline)

    study.optimize(function, n_trials=25, catch=(ArithmeticError,))
    for trial in study.trials:
        plan = plan_of(trial)
        assert plan is not None
        assert plan.params == trial.params
        pipeline = decode(plan.params, space)
        assert space.violations(pipeline) == ()
        assert pipeline.hash == plan.hash


def _redrawn(record: Fielded, counts: Collection[str], rng: np.random.Generator) -> Any:
    """The record with drawn values in all fields that do not count."""
    idle = [field for field in declared_fields(type(record)) if field.name not in counts]
    return dataclasses.replace(record, **{field.name: draw_value(field.distribution, rng) for field in idle})


@given(seed=st.integers(0, 2**32), length=st.integers(0, IMPLYING.max_length))
@settings(max_examples=60, deadline=None)
def test_the_hash_does_not_see_fields_that_do_not_count(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    pipeline = random_pipeline(IMPLYING, length, rng)
    read = {name for node in pipeline.nodes for name in node.recipe_fields}
    nodes = tuple(_redrawn(node, node.active_values(), rng) for node in pipeline.nodes)
    same = Pipeline(nodes, _redrawn(pipeline.recipe, pipeline.recipe.active_values(read), rng))
    assert same != pipeline
    assert same.hash == pipeline.hash
    unread = {"n9.op": "cut", "recipe.momentum": 0.9}
    assert decode(encode(same, IMPLYING) | unread, IMPLYING).hash == pipeline.hash
