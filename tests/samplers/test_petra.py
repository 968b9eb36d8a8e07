from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from support.toy_space import BOUNDS, DIRECTIONS, FREE, IMPLYING, Cut, Fit, Toy, landscape, objective

from petra_optuna.errors import UserError
from petra_optuna.evolution import MUTATIONS, Bounds, hypervolume
from petra_optuna.pipeline import Pipeline, SearchSpace, decode, encode, suggest
from petra_optuna.samplers import Options, PetraSampler, is_external, plan_of
from petra_optuna.samplers.history import START_DEPTH

optuna.logging.set_verbosity(optuna.logging.ERROR)
Objective = Callable[[optuna.Trial], Any]


class Spy(PetraSampler):
    """Counts the parameters that were not planned."""

    unplanned = 0

    def sample_independent(self, *args: Any, **kwargs: Any) -> Any:
        self.unplanned += 1
        return super().sample_independent(*args, **kwargs)


def _study(space: SearchSpace | None = FREE, **settings: Any) -> optuna.Study:
    sampler = Spy(
        space, **{"seed": 0, "population_size": 8, "candidates": 1, "second_mutation": 0.0, **settings}
    )
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    study.set_user_attr("petra:bounds", BOUNDS)
    return study


def _run(trials: int, function: Objective = objective, **settings: Any) -> optuna.Study:
    study = _study(**settings)
    study.optimize(function, n_trials=trials)
    return study


def test_every_parameter_is_planned() -> None:
    for space in (FREE, IMPLYING):
        study = _run(60, lambda trial, space=space: landscape_of(trial, space), space=space)
        assert isinstance(study.sampler, Spy)
        assert study.sampler.unplanned == 0
        for trial in study.trials:
            plan = plan_of(trial)
            assert plan is not None
            pipeline = decode(trial.params, space)
            assert plan.params == trial.params
            assert plan.hash == pipeline.hash
            assert space.violations(pipeline) == ()


def landscape_of(trial: optuna.Trial, space: SearchSpace) -> tuple[float, float]:
    return landscape(suggest(trial, space))


def test_the_same_seed_gives_the_same_search_and_another_one_another() -> None:
    first, second, third = _run(40), _run(40), _run(40, seed=1)
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    assert [trial.params for trial in first.trials] != [trial.params for trial in third.trials]


def test_a_plan_is_a_function_of_the_trials_before_it() -> None:
    """Any trial can be planned again by a fresh sampler from nothing but its predecessors."""
    study = _run(40)
    for number in (3, 11, 25, 39):
        again = _study()
        again.add_trials(study.trials[:number])
        trial = again.ask()
        suggest(trial, FREE)
        assert trial.params == study.trials[number].params


def test_no_pipeline_is_run_twice_while_there_are_others() -> None:
    hashes = [decode(trial.params, FREE).hash for trial in _run(120).trials]
    assert len(set(hashes)) == 120


def test_pending_pipelines_are_not_repeated() -> None:
    study = _study()
    asked = [study.ask() for _ in range(40)]
    hashes = {suggest(trial, FREE).hash for trial in asked}
    assert len(hashes) == 40


@dataclass(frozen=True)
class Switch(Toy):
    name = "switch"
    code = "Sw"
    kind = "structure"
    on: Annotated[bool, CategoricalDistribution((False, True))] = False


def test_an_exhausted_space_repeats_itself_and_says_so() -> None:
    space = SearchSpace((Switch,), max_length=1)
    study = _run(10, lambda trial: landscape_of(trial, space), space=space, population_size=2)
    notes = [plan.note for trial in study.trials if (plan := plan_of(trial)) is not None]
    hashes = [decode(trial.params, space).hash for trial in study.trials]
    repeated = [value in hashes[:number] for number, value in enumerate(hashes)]
    assert [note is not None and "duplicate" in note for note in notes] == repeated
    assert sum(repeated) == 7


def test_random_trials_come_first_and_are_of_every_length_in_turn() -> None:
    study = _run(8)
    plans = [plan_of(trial) for trial in study.trials]
    assert [plan.operator for plan in plans if plan is not None] == [None] * 8
    lengths = [trial.params["length"] for trial in study.trials]
    assert lengths == [1 + number % START_DEPTH for number in range(8)]


def test_children_name_parent_and_operator() -> None:
    study = _run(40)
    children = [(trial, plan) for trial in study.trials if (plan := plan_of(trial)) and plan.operator]
    assert len(children) == 32
    for trial, plan in children:
        assert plan.parent is not None
        assert plan.parent < trial.number
        parent = decode(study.trials[plan.parent].params, FREE)
        child = decode(trial.params, FREE)
        if plan.operator == "insert":
            assert len(child.body) == len(parent.body) + 1
        if plan.operator in ("change_node", "change_recipe"):
            assert child.notation == parent.notation


def test_pipelines_grow_no_faster_than_the_depth() -> None:
    study = _run(60)
    for trial in study.trials:
        plan = plan_of(trial)
        assert plan is not None
        assert plan.depth is not None
        assert trial.params["length"] <= plan.depth
    assert max(trial.params["length"] for trial in study.trials) > START_DEPTH


def test_enqueued_trials_are_run_as_given_join_the_population_and_are_external() -> None:
    long = Pipeline((Cut(0.3), Fit(), Cut(0.4), Fit()))
    study = _study(population_size=2)
    study.enqueue_trial(encode(long, FREE))
    study.enqueue_trial(encode(Pipeline(), FREE))
    study.optimize(objective, n_trials=30)
    assert decode(study.trials[0].params, FREE) == long
    assert [is_external(trial) for trial in study.trials] == [True, True] + [False] * 28
    parents = {plan.parent for trial in study.trials if (plan := plan_of(trial)) is not None}
    assert parents & {0, 1}
    assert isinstance(study.sampler, Spy)
    assert study.sampler.unplanned == 0


def test_a_partly_enqueued_trial_is_completed_by_the_plan() -> None:
    study = _study()
    study.enqueue_trial({"length": 2, "n0.op": "cut", "n0.cut.ratio": 0.25, "n1.op": "fit"})
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    pipeline = decode(trial.params, FREE)
    assert pipeline.notation.startswith("Ct-Ft")
    assert pipeline.nodes[0].values()["ratio"] == 0.25
    assert is_external(trial)
    plan = plan_of(trial)
    assert plan is not None
    assert (plan.params, plan.hash) == (trial.params, pipeline.hash)
    assert isinstance(study.sampler, Spy)
    assert study.sampler.unplanned == 0


def test_failed_pruned_and_infeasible_trials() -> None:
    def fragile(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        if trial.number % 5 == 3:
            raise ArithmeticError
        if trial.number % 5 == 4:
            raise optuna.TrialPruned
        trial.set_constraint("size", values[1] - 90)
        return values

    study = _study()
    study.optimize(fragile, n_trials=60, catch=(ArithmeticError,))
    parents = {plan.parent for trial in study.trials if (plan := plan_of(trial)) and plan.operator}
    states = {study.trials[number].state.name for number in parents if number is not None}
    assert states == {"COMPLETE"}


def test_a_study_of_failures_goes_on_with_random_pipelines() -> None:
    def failing(trial: optuna.Trial) -> tuple[float, float]:
        objective(trial)
        raise ArithmeticError

    study = _study(population_size=3)
    study.optimize(failing, n_trials=8, catch=(ArithmeticError,))
    assert len({decode(trial.params, FREE).hash for trial in study.trials}) == 8


def test_an_unknown_parameter_is_drawn_by_itself_and_always_the_same() -> None:
    def extended(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        trial.suggest_int("threads", 1, 64)
        trial.suggest_int("batch", 1, 64)
        return values

    first, second = (_run(12, extended) for _ in range(2))
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    assert len({trial.params["threads"] for trial in first.trials}) > 5
    assert any(trial.params["threads"] != trial.params["batch"] for trial in first.trials)


def _volume(study: optuna.Study) -> float:
    return hypervolume([trial.values for trial in study.trials], DIRECTIONS, Bounds.from_dict(BOUNDS))


def test_evolution_beats_random_search_and_never_runs_backwards() -> None:
    """Under one lost sign the search would look for the worst, and be far below random search."""

    def random(seed: int) -> optuna.Study:
        study = optuna.create_study(directions=DIRECTIONS, sampler=optuna.samplers.RandomSampler(seed=seed))
        study.optimize(objective, n_trials=150)
        return study

    ours = [_volume(_run(150, seed=seed)) for seed in range(5)]
    theirs = [_volume(random(seed)) for seed in range(5)]
    assert np.mean(ours) > np.mean(theirs)
    assert min(ours) > 1  # the original's


def test_one_objective_works_too() -> None:
    study = optuna.create_study(direction="maximize", sampler=PetraSampler(FREE, seed=0, candidates=4))
    study.optimize(lambda trial: objective(trial)[0] - objective(trial)[1] / 100, n_trials=60)
    early = max(trial.value for trial in study.trials[:8])
    assert study.best_value > early


def test_without_a_space_the_parameters_of_good_trials_change_locally() -> None:
    def branching(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["near", "far"]) == "near":
            return sum(abs(trial.suggest_float(f"near.{name}", -10, 10) - 3) for name in "wxyz")
        return 40 + trial.suggest_float("far.y", 0, 10)

    def best(make: Callable[[int], optuna.samplers.BaseSampler], seed: int) -> float:
        study = optuna.create_study(sampler=make(seed))
        study.optimize(branching, n_trials=60)
        return study.best_value

    ours = [best(lambda seed: PetraSampler(None, seed=seed, candidates=4), seed) for seed in range(3)]
    theirs = [best(lambda seed: optuna.samplers.RandomSampler(seed=seed), seed) for seed in range(3)]
    assert np.mean(ours) < np.mean(theirs)


def test_threads_share_a_study() -> None:
    study = _study()
    study.optimize(objective, n_trials=40, n_jobs=3)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert sorted(plan.index for trial in study.trials if (plan := plan_of(trial))) == list(range(40))


def test_options_are_the_arguments_by_name() -> None:
    arguments = inspect.signature(PetraSampler).parameters
    declared = {field.name: field.default for field in dataclasses.fields(Options)}
    assert {name: arguments[name].default for name in arguments if name not in ("space", "seed")} == declared


def test_a_sampler_from_options_is_that_of_the_same_arguments() -> None:
    options = {"population_size": 5, "candidates": 3, "mutations": list(MUTATIONS)}
    named, built = (
        PetraSampler(FREE, seed=2, **options),
        PetraSampler.from_options(FREE, Options(**options), seed=2),
    )
    stories = []
    for sampler in (named, built):
        study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
        study.optimize(objective, n_trials=15)
        stories.append([trial.params for trial in study.trials])
    assert stories[0] == stories[1]


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"population_size": 1}, {"random_share": 1.0}, {"mutations": ()}, {"rates": "greedy"}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="got"):
        PetraSampler(FREE, **{"seed": 0, **wrong})


def test_importing_the_samplers_does_not_load_torch() -> None:
    code = "import sys, petra_optuna.samplers; print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
