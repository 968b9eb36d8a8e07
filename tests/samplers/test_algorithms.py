"""Search algorithms by name draw legal values, a grid is complete, and groups keep to their own sampler."""

from __future__ import annotations

import itertools
import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

from petra_optuna.errors import UserError
from petra_optuna.samplers import ALGORITHMS, GroupedSampler, algorithm, grid_size, sampler_of
from petra_optuna.samplers.algorithms import grid_points

MIXED = {
    "depth": CategoricalDistribution((18, 34, 50)),
    "batch": IntDistribution(32, 512, log=True),
    "width": IntDistribution(8, 32, step=8),
    "rate": FloatDistribution(1e-3, 1e-1, log=True),
    "dropout": FloatDistribution(0.1, 0.5),
    "share": FloatDistribution(0.0, 0.7, step=0.1),
    "fixed": FloatDistribution(0.5, 0.5),
}
SMALL = {name: MIXED[name] for name in ("depth", "width")}
NAMES = [one.name for one in ALGORITHMS]


def drawn(trial, space):
    """The parameters of a trial, each from its own distribution."""
    return {name: trial._suggest(name, one) for name, one in space.items()}


def score(params):
    return sum(math.log(value) for value in params.values() if value)


def run(sampler, space, trials, storage=None):
    study = optuna.create_study(sampler=sampler, storage=storage, study_name="toy", load_if_exists=True)
    study.optimize(lambda trial: score(drawn(trial, space)), n_trials=trials)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_draws_legal_values_and_the_seed_decides_them(name):
    trials = 8
    params = [run(sampler_of(name, {}, MIXED, seed=3), MIXED, trials) for _ in range(2)]
    assert params[0] == params[1]
    assert len(params[0]) == trials
    for drawn_values, (parameter, distribution) in itertools.product(params[0], MIXED.items()):
        assert distribution._contains(distribution.to_internal_repr(drawn_values[parameter]))
    assert len({tuple(one.items()) for one in params[0]}) > trials / 2


@pytest.mark.parametrize("name", NAMES)
def test_one_parameter_that_is_left_is_still_searched(name):
    assert len(run(sampler_of(name, {}, {"fixed": MIXED["fixed"]}, 0), {"fixed": MIXED["fixed"]}, 1)) == 1


def test_the_points_of_a_grid_are_legal_and_reach_both_ends():
    for distribution in MIXED.values():
        points = grid_points(distribution)
        assert len(set(points)) == len(points)
        assert all(distribution._contains(distribution.to_internal_repr(point)) for point in points)
        if not isinstance(distribution, CategoricalDistribution):
            assert (min(points), max(points)) == pytest.approx((distribution.low, distribution.high))
    assert grid_points(MIXED["batch"]) == [32, 64, 128, 256, 512]
    assert grid_points(MIXED["width"]) == [8, 16, 24, 32]
    assert len(grid_points(MIXED["rate"])) == len(grid_points(MIXED["dropout"])) == 5


def test_a_grid_has_each_combination_once():
    assert grid_size(SMALL) == 12
    points = run(sampler_of("grid", {}, SMALL, 0), SMALL, 100)
    assert sorted(tuple(one.values()) for one in points) == sorted(
        itertools.product(MIXED["depth"].choices, (8, 16, 24, 32))
    )


def test_a_grid_that_is_gone_on_with_under_another_seed_visits_what_is_left():
    """The number of a point is stored, not its values."""
    storage = InMemoryStorage()
    run(sampler_of("grid", {}, SMALL, seed=0), SMALL, 5, storage)
    points = run(sampler_of("grid", {}, SMALL, seed=5), SMALL, 100, storage)
    assert len({tuple(one.values()) for one in points}) == len(points) == 12


def test_a_trial_beside_the_grid_does_not_end_it():
    """One that runs a killed one again has parameters and is no point."""
    storage = InMemoryStorage()
    run(sampler_of("grid", {}, SMALL, 0), SMALL, 11, storage)
    study = optuna.load_study(study_name="toy", storage=storage, sampler=sampler_of("grid", {}, SMALL, 11))
    study.enqueue_trial({"depth": 18, "width": 8})
    study.optimize(lambda trial: score(drawn(trial, SMALL)), n_trials=1)
    study.optimize(lambda trial: score(drawn(trial, SMALL)), n_trials=1)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 12


def test_bohb_prunes_weak_trials_and_keeps_the_best():
    """A toy whose loss at each step tells the final order."""

    def objective(trial):
        level = trial.suggest_float("level", 0, 1)
        for step in (1, 3, 9):
            trial.report(level + 1 / step, step)
            if step < 9 and trial.should_prune():
                raise optuna.TrialPruned
        return level

    pruner = HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    study = optuna.create_study(sampler=sampler_of("bohb", {}, {}, 0), pruner=pruner)
    study.optimize(objective, n_trials=40)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) >= 10
    pruned = [trial.params["level"] for trial in study.trials if trial.state == TrialState.PRUNED]
    assert study.best_value < min(pruned)
    assert study.best_value < 0.1


def test_only_bohb_and_hyperband_stop_early_and_only_a_grid_is_exhaustive():
    assert {one.name for one in ALGORITHMS if one.early_stopping} == {"bohb", "hyperband"}
    assert {one.name for one in ALGORITHMS if one.exhaustive} == {"grid"}


def test_an_unknown_algorithm_names_the_known():
    for given in (lambda: algorithm("anneal"), lambda: sampler_of("tpe", {"anneal": ("depth",)}, MIXED, 0)):
        with pytest.raises(UserError, match="'anneal'; there are bohb, hyperband, tpe"):
            given()


def test_a_parameter_is_in_one_group():
    with pytest.raises(UserError, match="two algorithms are to draw parameter 'depth'"):
        sampler_of("tpe", {"random": ("depth",), "gp": ("width", "depth")}, MIXED, 0)


def test_a_grid_draws_no_group():
    """It would end the search after its own points."""
    with pytest.raises(UserError, match="'grid' visits all points of a space and cannot draw a group"):
        sampler_of("tpe", {"grid": ("depth",)}, MIXED, 0)


class Spy(RandomSampler):
    """Remembers which parameters it drew."""

    def __init__(self):
        super().__init__(seed=0)
        self.drawn = set()

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.drawn.add(param_name)
        return super().sample_independent(study, trial, param_name, param_distribution)


def test_each_group_is_drawn_by_its_own_sampler():
    default, first, second = Spy(), Spy(), Spy()
    run(GroupedSampler(default, {("depth", "batch"): first, ("rate",): second}), MIXED, 4)
    assert (first.drawn, second.drawn) == ({"depth", "batch"}, {"rate"})
    assert default.drawn == set(MIXED) - {"depth", "batch", "rate"} - {"fixed"}


def test_a_relative_sampler_draws_its_own_parameters_together_and_no_others():
    asked = []

    class Together(TPESampler):
        def sample_relative(self, study, trial, search_space):
            asked.append(set(search_space))
            return super().sample_relative(study, trial, search_space)

    others = Spy()
    tpe = Together(seed=0, multivariate=True, n_startup_trials=2)
    run(GroupedSampler(tpe, {("depth",): others}), SMALL | {"rate": MIXED["rate"]}, 8)
    assert others.drawn == {"depth"}
    assert asked[-1] == {"width", "rate"}


@pytest.mark.parametrize("name", ["tpe", "random", "petra"])
def test_without_groups_it_is_the_default_sampler(name):
    alone = run(algorithm(name).sampler(1, MIXED), MIXED, 12)
    assert run(GroupedSampler(algorithm(name).sampler(1, MIXED), {}), MIXED, 12) == alone
    assert run(sampler_of(name, {}, MIXED, 1), MIXED, 12) == alone


@pytest.mark.parametrize(
    ("name", "other"),
    [("bohb", "random"), ("tpe", "gp"), ("random", "tpe"), ("grid", "random"), ("petra", "random")],
)
def test_every_algorithm_leaves_a_group_to_another(name, other):
    params = run(sampler_of(name, {other: ("rate", "depth")}, MIXED, 2), MIXED, 9)
    assert len(params) == 9
    assert len({one["rate"] for one in params}) > 4


class TestGroupedSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: GroupedSampler(
            TPESampler(seed=0, multivariate=True, n_startup_trials=0),
            {("x", "a"): TPESampler(seed=1, multivariate=True, n_startup_trials=0)},
        )
