"""Laws of the surrogate."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import BaseSampler

from petra_optuna.errors import TrialError, UserError
from petra_optuna.pipebench import VARIANTS, PipeBench, profile
from petra_optuna.pipebench.best_known import random_member
from petra_optuna.pipebench.coarse import CoarsePrune, CoarseTrain
from petra_optuna.pipebench.enumeration import MOST, count, enumerate_networks
from petra_optuna.pipebench.operations import (
    BODY,
    CONVERSIONS,
    BFloat16,
    DropBlocks,
    LowRank,
    Prune,
    QuantizeAware,
    QuantizeStatic,
    Train,
)
from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace, declared_fields
from petra_optuna.pipeline.nodes import RankRule, Scope

MEDIUM = PipeBench.variant("medium")
LARGE = PipeBench.variant("large")
SEEDS = st.integers(0, 2**32 - 1)
SCOPES: tuple[Scope, ...] = get_args(Scope)


def quality(*nodes: Operation, bench: PipeBench = LARGE, recipe: Recipe | None = None) -> float:
    values = bench.evaluate(Pipeline(nodes, recipe or Recipe())).values
    assert values is not None
    return values[0]


def brute_force(bench: PipeBench, longest: int) -> dict[tuple[float, ...], str]:
    """Every pipeline through the public door, and the non-dominated values by definition."""
    nodes: list[Operation] = [CoarsePrune(removed=0.2 * step) for step in (1, 2, 3, 4)]
    nodes += [CoarseTrain(epochs=epochs) for epochs in (1, 3, 5)]
    ends: list[tuple[Operation, ...]] = [(), *((kind(),) for kind in bench.space.conversions)]
    found: dict[tuple[float, ...], str] = {}
    for length in range(longest + 1):
        for body, end in itertools.product(itertools.product(nodes, repeat=length), ends):
            pipeline = Pipeline((*body, *end))
            values = bench.evaluate(pipeline).values
            assert values is not None
            found.setdefault(values, pipeline.hash)
    return {
        values: text
        for values, text in found.items()
        if not any(
            other != values
            and other[0] >= values[0]
            and all(a <= b for a, b in zip(other[1:], values[1:], strict=True))
            for other in found
        )
    }


def test_the_exact_front_is_that_of_brute_force() -> None:
    small = PipeBench.variant("small")
    space = SearchSpace((CoarsePrune, CoarseTrain), small.space.conversions, max_length=2)
    bench = dataclasses.replace(small, space=space)
    exact = {values: pipeline.hash for pipeline, values in bench.front()}
    assert exact.keys() == brute_force(bench, 2).keys()


def test_the_small_variant_is_enumerated() -> None:
    small = PipeBench.variant("small")
    assert count(small.space) <= MOST
    points = small.front()
    assert small.front() is points
    values = [point for _, point in points]
    assert len(set(values)) == len(values)
    for one, other in itertools.permutations(values, 2):
        assert not (one[0] >= other[0] and one[1] <= other[1])
    for pipeline, point in points:
        assert small.evaluate(pipeline).values == point
        assert small.space.violations(pipeline) == ()
    whole = small.hypervolume(values)
    assert 0 < small.hypervolume(values[::2]) / whole < 1
    assert small.hypervolume([]) == 0


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_nothing_beats_the_exact_front(seed: int) -> None:
    small = PipeBench.variant("small")
    values = small.evaluate(random_member(small, np.random.default_rng(seed))).values
    assert values is not None
    assert any(point[0] >= values[0] and point[1] <= values[1] for _, point in small.front())


def test_each_pipeline_is_enumerated_once() -> None:
    small = PipeBench.variant("small")
    space = dataclasses.replace(small.space, max_length=2)
    hashes = [Pipeline(nodes).hash for nodes, _ in enumerate_networks(space, small.coefficients, 6)]
    assert len(set(hashes)) == len(hashes)
    # Those with a node that implies the conversion are counted with and without it.
    assert len(hashes) < count(space)


@pytest.mark.parametrize("name", ["medium", "large", "device", "held_out"])
def test_a_continuous_space_is_not_enumerated(name: str) -> None:
    bench = PipeBench.variant(name)
    assert not bench.enumerable
    with pytest.raises(UserError, match="enumerated"):
        bench.front()


def test_training_recovers_what_came_before_it() -> None:
    before, after = quality(Train(), Prune()), quality(Prune(), Train())
    assert after > quality(Prune())
    assert after > before + 0.005


def test_low_rank_before_and_after_pruning_differ() -> None:
    bench = LARGE
    first = bench.states(Pipeline((LowRank(rule="share"), Prune())))[-1]
    second = bench.states(Pipeline((Prune(), LowRank(rule="share"))))[-1]
    assert first.parameters > second.parameters
    assert first.damage < second.damage


@pytest.mark.parametrize("rule", get_args(RankRule))
def test_ranks_cost_less_where_the_layers_compete(rule: RankRule) -> None:
    together, alone = (LARGE.states(Pipeline((LowRank(scope=scope, rule=rule),)))[-1] for scope in SCOPES)
    assert 0 < together.damage < 0.1 * alone.damage
    assert together.parameters < alone.parameters
    assert together.macs > together.parameters


def test_two_cuts_cost_what_one_of_the_same_size_does() -> None:
    one = LARGE.states(Pipeline((Prune(removed=0.64),)))[-1]
    two = LARGE.states(Pipeline((Prune(removed=0.4), Prune(removed=0.4))))[-1]
    assert one.damage == pytest.approx(two.damage)
    assert one.parameters == pytest.approx(two.parameters)


def test_two_trainings_do_what_one_does_but_for_the_shock() -> None:
    one = quality(Prune(), Train(epochs=6))
    two = quality(Prune(), Train(epochs=3), Train(epochs=3))
    assert two <= one


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_more_epochs_never_hurt(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pipeline = random_member(LARGE, rng)
    others = [node for node in pipeline.nodes if node.kind != "training"]
    place = int(rng.integers(len(others) + 1))
    place = min(place, len(others) - (pipeline.conversion is not None))
    found = []
    for epochs in range(1, 11):
        nodes = (*others[:place], Train(epochs=epochs), *others[place:])
        values = LARGE.evaluate(dataclasses.replace(pipeline, nodes=nodes)).values
        if values is None:  # the learning rate diverges, or no block is left, whatever the epochs
            assert not found
            return
        found.append(values[0])
    gains = np.diff(found)
    assert np.all(gains >= -1e-9)


def test_returns_diminish() -> None:
    found = [quality(Prune(removed=0.7), Train(epochs=epochs)) for epochs in (1, 4, 7, 10)]
    gains = np.diff(found)
    assert gains[0] > gains[1] > gains[2] > 0


@given(SEEDS, st.sampled_from(VARIANTS), st.sampled_from([0.0, 5.0]))
@settings(max_examples=150, deadline=None)
def test_values_stay_between_floor_and_one(seed: int, name: str, noise: float) -> None:
    bench = PipeBench.variant(name, noise=noise)
    outcome = bench.evaluate(random_member(bench, np.random.default_rng(seed)))
    assert outcome.seconds > 0
    if outcome.values is not None:
        assert profile("digits")["chance"] <= outcome.values[0] <= 1
        assert all(np.isfinite(value) and value > 0 for value in outcome.values)


def test_a_ruined_network_is_at_chance() -> None:
    ruined = quality(*[Prune(removed=0.9, criterion="hessian")] * 3)
    assert ruined == pytest.approx(LARGE.coefficients["chance"], abs=0.05)


def test_rounding_costs_narrow_networks_more_and_training_for_it_helps() -> None:
    wide = quality() - quality(QuantizeStatic())
    narrow = quality(Prune(removed=0.7), Train()) - quality(Prune(removed=0.7), Train(), QuantizeStatic())
    assert narrow > wide > 0
    compact = PipeBench.variant("held_out")
    trained = quality(QuantizeAware(), QuantizeStatic(), bench=compact)
    assert trained > quality(Train(epochs=2), QuantizeStatic(), bench=compact)


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_what_does_not_count_does_not_change_values(seed: int) -> None:
    pipeline = random_member(LARGE, np.random.default_rng(seed))
    assert LARGE.evaluate(pipeline) == LARGE.evaluate(pipeline.canonical())


def test_noise_follows_pipeline_and_repeat_only() -> None:
    noisy, pipeline = PipeBench.variant("medium", noise=1.0), Pipeline((Prune(), Train()))
    first = noisy.evaluate(pipeline).values
    assert first == noisy.evaluate(pipeline).values
    assert first != noisy.evaluate(pipeline, repeat=1).values
    exact = MEDIUM.evaluate(pipeline).values
    repeats = [noisy.evaluate(pipeline, repeat).values for repeat in range(200)]
    mean = np.mean([values for values in repeats if values is not None], axis=0)
    assert exact is not None
    assert mean == pytest.approx(exact, rel=0.01)
    assert noisy.without_noise().evaluate(pipeline).values == exact


def test_what_the_device_cannot_run_is_a_violated_constraint() -> None:
    device = PipeBench.variant("device")
    refused = device.evaluate(Pipeline((Prune(), BFloat16())))
    assert refused.values is not None
    assert refused.constraints["device"] > 0
    assert not refused.feasible
    assert device.evaluate(Pipeline((Prune(), Train(), QuantizeStatic()))).feasible
    assert device.evaluate(Pipeline()).constraints["size_bytes"] > 0


def test_a_diverging_training_fails() -> None:
    failed = LARGE.evaluate(Pipeline((Prune(), Train()), Recipe(optimizer="rmsprop", lr=0.1)))
    assert failed.values is None
    assert failed.failure is not None
    assert "0.1" in failed.failure
    assert failed.seconds > 0
    assert not failed.feasible


def test_the_last_block_cannot_be_dropped() -> None:
    assert LARGE.evaluate(Pipeline((DropBlocks(removed=0.6),) * 6)).values is None


def test_the_time_follows_epochs_and_arithmetic() -> None:
    def seconds(*nodes: Operation) -> float:
        return LARGE.evaluate(Pipeline(nodes)).seconds

    assert seconds(Train(epochs=6)) > 2 * seconds(Train(epochs=2)) - seconds()
    assert seconds(Prune(), Train()) < seconds(Train(), Prune())
    # The budget is spent by then.
    assert seconds(Train(epochs=10), Train(epochs=5)) == seconds(Train(epochs=10))


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UserError, match="medium"):
        PipeBench.variant("huge")
    with pytest.raises(UserError, match="compact"):
        profile("huge")


def test_a_benchmark_travels_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(LARGE))
    pipeline = Pipeline((Prune(), Train()))
    assert copy.evaluate(pipeline) == LARGE.evaluate(pipeline)


def test_the_full_space_is_that_of_the_real_operations() -> None:
    from petra_optuna.operations import BODY_OPERATIONS
    from petra_optuna.operations import CONVERSIONS as REAL_CONVERSIONS

    for mine, real in zip((*BODY, *CONVERSIONS), (*BODY_OPERATIONS, *REAL_CONVERSIONS), strict=True):
        assert (mine.name, mine.kind, mine.recipe_fields) == (real.name, real.kind, real.recipe_fields)
        assert declared_fields(mine) == declared_fields(real)
        assert (mine.implies and mine.implies.name) == (real.implies and real.implies.name)


def test_the_notation_means_the_real_operations_beside_the_benchmark() -> None:
    # In a process of its own: other tests declare operations with codes of their own.
    code = (
        "import petra_optuna.pipebench; from petra_optuna.operations import Prune; "
        "from petra_optuna.pipeline import Pipeline; "
        "assert type(Pipeline.from_notation('LR-Pr-Tr-PTQ').nodes[1]) is Prune"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_loads_without_torch() -> None:
    code = "import sys, petra_optuna.pipebench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "tpe": lambda: optuna.samplers.TPESampler(seed=0, n_startup_trials=5),
    "tpe-group": lambda: optuna.samplers.TPESampler(
        seed=0, n_startup_trials=5, multivariate=True, group=True
    ),
    "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=0, population_size=6),
    "nsga3": lambda: optuna.samplers.NSGAIIISampler(seed=0, population_size=6),
    "qmc": lambda: optuna.samplers.QMCSampler(seed=0),
    "gp": lambda: optuna.samplers.GPSampler(seed=0, n_startup_trials=12),
    "brute-force": lambda: optuna.samplers.BruteForceSampler(seed=0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("variant", ["small", "device"])
def test_every_sampler_of_optuna_runs_on_it(name: str, variant: str) -> None:
    if name == "brute-force" and variant != "small":
        pytest.skip("it refuses continuous parameters")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench: Any = PipeBench.variant(variant)
    study = optuna.create_study(directions=bench.directions, sampler=SAMPLERS[name]())
    study.optimize(bench.objective, n_trials=15, catch=(TrialError,))
    trials = study.get_trials()
    assert len(trials) == 15
    done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert done
    assert all(trial.user_attrs["seconds"] > 0 for trial in trials)
    assert all(("device" in trial.constraints) == (variant == "device") for trial in done)
