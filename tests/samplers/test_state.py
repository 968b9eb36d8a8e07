"""What the sampler shows of itself is what it plans by."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from support.toy_space import BOUNDS, DIRECTIONS, FREE, objective

from petra_optuna.evolution import Bounds, unit_hypervolume
from petra_optuna.samplers import PetraSampler, SamplerState, plan_of, plot_state

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

TRIALS = 40


def _search(trials: int, fail_every: int = 7, **options: Any) -> tuple[optuna.Study, list[SamplerState]]:
    """A study, and what its sampler showed after each trial."""
    sampler = PetraSampler(FREE, seed=1, **{"candidates": 1, **options})
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    study.set_user_attr("petra:bounds", BOUNDS)
    shown = []
    for number in range(trials):
        trial = study.ask()
        values = objective(trial)
        study.tell(trial, None if number % fail_every == 3 else values, state=_state(number, fail_every))
        shown.append(sampler.state(study))
    return study, shown


def _state(number: int, fail_every: int) -> optuna.trial.TrialState:
    failed = number % fail_every == 3
    return optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE


def _sampler(study: optuna.Study) -> PetraSampler:
    assert isinstance(study.sampler, PetraSampler)
    return study.sampler


@pytest.mark.parametrize("options", [{}, {"rates": "thompson", "strength": "adaptive", "random_share": 0.25}])
def test_the_past_is_shown_as_it_was(options: dict[str, Any]) -> None:
    study, shown = _search(TRIALS, **options)
    assert _sampler(study).trace(study) == shown
    # Another object, with an empty cache, sees the same.
    assert PetraSampler(FREE, seed=1, candidates=1, **options).state(study) == shown[-1]


def test_the_next_trial_is_planned_by_what_is_shown() -> None:
    study, shown = _search(TRIALS, random_share=0.25)
    bred = 0
    for trial, before in zip(study.trials[1:], shown, strict=False):
        plan = plan_of(trial)
        assert plan is not None
        assert plan.depth == before.depth
        if plan.parent is not None:
            assert plan.parent in before.population
            assert before.rates[str(plan.operator)] > 0
            bred += 1
    assert bred > TRIALS / 2


def test_uses_and_credit_are_counted_from_the_trials() -> None:
    study, shown = _search(TRIALS, second_mutation=0.5)
    used = [
        name
        for trial in study.trials
        if (plan := plan_of(trial)) is not None
        for name in (plan.operator, plan.second)
        if name is not None
    ][-50:]
    assert shown[-1].use_counts == {name: used.count(name) for name in shown[-1].rates}
    for name, credit in shown[-1].credit.items():
        assert (credit is None) == (name not in used)
        assert credit is None or 0 <= credit <= 1
    assert sum(shown[-1].rates.values()) == pytest.approx(1)
    assert any(credit for credit in shown[-1].credit.values())


def test_front_and_hypervolume_are_those_of_the_study() -> None:
    study, shown = _search(TRIALS, population_size=30)
    bounds = Bounds.from_dict(BOUNDS)
    best = [
        trial for trial in study.best_trials if np.all(bounds.unit(np.array([trial.values]), DIRECTIONS) < 1)
    ]
    assert shown[-1].front == tuple(sorted(trial.number for trial in best))
    units = bounds.unit(np.array([trial.values for trial in best]), DIRECTIONS)
    # The population holds the whole front, and what is dominated adds nothing.
    assert len(best) <= 30
    assert shown[-1].hypervolume == pytest.approx(unit_hypervolume(units))
    volumes = [state.hypervolume for state in shown]
    assert volumes == sorted(volumes)


def test_an_empty_study_has_a_state() -> None:
    sampler = PetraSampler(FREE, seed=0)
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    state = sampler.state(study)
    assert (state.finished, state.newest, state.population, state.front) == (0, None, (), ())
    assert state.hypervolume == 0
    assert len(set(state.rates.values())) == 1
    assert sampler.trace(study) == []
    assert not any(trace.y for trace in plot_state(study, sampler).data)


def test_bounds_that_nobody_froze_may_move() -> None:
    sampler = PetraSampler(FREE, seed=2, candidates=1)
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    shown = []
    for _ in range(14):
        study.optimize(objective, n_trials=1)
        shown.append(sampler.state(study))
    assert sampler.trace(study) == shown


def test_parameters_without_a_space_have_operators_and_no_depth() -> None:
    sampler = PetraSampler(None, seed=0)
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    study.optimize(lambda trial: (trial.suggest_float("a", 0, 1), trial.suggest_int("b", 1, 9)), n_trials=20)
    state = sampler.state(study)
    assert state.depth is None
    assert set(state.rates) == {"change_params", "redraw_param", "switch_branch"}
    assert sum(state.use_counts.values()) == 12


def test_the_plot_shows_the_trace() -> None:
    study, shown = _search(20)
    figure = plot_state(study, _sampler(study))
    lines = {(trace.name, trace.yaxis): list(trace.y) for trace in figure.data}
    for name in shown[-1].rates:
        assert lines[name, "y"] == [state.rates[name] for state in shown]
        assert lines[name, "y2"] == [state.credit[name] for state in shown]
    assert lines["depth", "y3"] == [state.depth for state in shown]
    assert lines["hypervolume", "y4"] == [state.hypervolume for state in shown]
