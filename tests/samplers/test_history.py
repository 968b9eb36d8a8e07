from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from support.toy_space import FREE, Cut

from petra_optuna.evolution import Bounds
from petra_optuna.pipeline import Pipeline, SearchSpace, distributions, encode
from petra_optuna.samplers import plan_indices, superseded
from petra_optuna.samplers.history import START_DEPTH, History
from petra_optuna.samplers.identity import pipeline_of
from petra_optuna.samplers.priors import StudyPriors

DIRECTIONS = ("maximize", "minimize")
BOUNDS = Bounds((0.9, 100.0), (False, True))
COMPLETE, FAIL, PRUNED = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED


def _trial(
    number: int,
    values: tuple[float, float] | None = None,
    state: TrialState = COMPLETE,
    *,
    parent: int | None = None,
    operator: str | None = None,
    excess: float = 0.0,
    **attributes: Any,
) -> FrozenTrial:
    if operator is not None:
        attributes["petra:plan"] = {
            "index": number, "params": {}, "operator": operator, "parent": parent, "hash": str(number)
        }  # fmt: skip
    trial = create_trial(
        state=state, values=values, system_attrs=attributes, constraints={"size": excess} if values else None
    )
    trial.number = number
    return trial


def _history(
    trials: Sequence[FrozenTrial], bounds: Bounds | None = BOUNDS, space: SearchSpace | None = None
) -> History:
    history = History(DIRECTIONS, StudyPriors(bounds), space=space)
    history.update(trials)
    return history


def _read(*trials: FrozenTrial) -> History:
    return _history(trials)


def _credits(*trials: FrozenTrial) -> tuple[tuple[str | None, float], ...]:
    return tuple((plan.operator, credit) for plan, credit in _read(*trials).credited_plans(99))


def _entered(history: History) -> list[bool]:
    return [history.has_entered(number) for _, number in history.population.keys]


def test_credit_follows_the_front_as_it_stood_and_the_parent() -> None:
    credits = _credits(
        _trial(0, (0.90, 100.0)),
        _trial(1, (0.88, 50.0), operator="enters", parent=0),
        _trial(2, (0.87, 60.0), operator="beaten", parent=0),
        _trial(3, (0.88, 55.0), operator="better", parent=2),
        _trial(4, (0.88, 50.0), operator="repeats", parent=0),
        _trial(5, None, FAIL, operator="fails", parent=0),
        _trial(6, None, PRUNED, operator="pruned", parent=0),
        _trial(7, (0.99, 10.0), operator="forbidden", parent=0, excess=1.0),
        _trial(8, (0.95, 40.0), operator="enters later", parent=1),
    )
    assert credits == (
        ("enters", 1.0),
        ("beaten", 0.0),
        ("better", 0.5),
        ("repeats", 0.0),
        ("fails", 0.0),
        ("pruned", 0.0),
        ("forbidden", 0.0),
        ("enters later", 1.0),
    )


def test_more_quality_and_less_size_earn_credit_and_the_opposite_does_not() -> None:
    """Directions: one wrong sign turns these credits round."""
    start = _trial(0, (0.9, 100.0))
    for values, credit in [
        ((0.95, 100.0), 1.0),
        ((0.9, 90.0), 1.0),
        ((0.85, 100.0), 0.0),
        ((0.9, 110.0), 0.0),
    ]:
        assert _credits(start, _trial(1, values, operator="x", parent=0)) == (("x", credit),)


def test_external_trials_and_random_ones_earn_no_credit_but_join() -> None:
    history = _read(
        _trial(0, (0.9, 100.0), fixed_params={"length": 0}),
        _trial(1, (0.9, 90.0)),
        _trial(2, (0.9, 80.0), operator="x", parent=0, fixed_params={"length": 1}),
    )
    assert history.credited_plans(99) == []
    assert _entered(history) == [True, True, True]


def test_indices_are_those_of_a_study_in_which_nothing_was_killed() -> None:
    retry = {"petra:retry": {"of": 1, "index": 1, "attempt": 1}}
    again = {"petra:retry": {"of": 3, "index": 1, "attempt": 2}}
    attributes: list[dict[str, Any]] = [{}, {}, {}, retry, {}, again, {}]
    trials = [_trial(number, None, PRUNED, **each) for number, each in enumerate(attributes)]
    assert plan_indices(trials) == {0: 0, 1: 1, 2: 2, 3: 1, 4: 3, 5: 1, 6: 4}
    assert superseded(trials) == {1, 3}


def test_superseded_trials_do_not_count_and_reruns_take_their_place() -> None:
    retry = {"petra:retry": {"of": 1, "index": 1, "attempt": 1}}
    history = _read(
        _trial(0, (0.9, 100.0)),
        _trial(1, None, FAIL, operator="killed", parent=0),
        _trial(2, (0.9, 90.0), operator="later", parent=0),
        _trial(3, (0.9, 95.0), operator="killed", parent=0, **retry),
    )
    assert [number for _, number in history.finished] == [0, 3, 2]
    assert [(plan.operator, credit) for plan, credit in history.credited_plans(9)] == [
        ("killed", 1.0),
        ("later", 1.0),
    ]


def test_depth_grows_by_one_after_each_stagnant_stretch() -> None:
    progress = [_trial(number, (0.9, 100.0 - number)) for number in range(6)]
    stagnant = [_trial(number, (0.5, 500.0)) for number in range(6, 14)]
    assert _read(*progress).depth(limit=5, patience=4) == START_DEPTH
    assert _read(*progress, *stagnant[:3]).depth(limit=5, patience=4) == START_DEPTH
    assert _read(*progress, *stagnant[:4]).depth(limit=5, patience=4) == START_DEPTH + 1
    assert _read(*progress, *stagnant).depth(limit=5, patience=4) == START_DEPTH + 2
    assert _read(*progress, *stagnant).depth(limit=3, patience=4) == 3
    assert _read(*progress, *stagnant).depth(limit=1, patience=4) == 1
    failed = [_trial(number, None, FAIL) for number in range(6, 10)]
    assert _read(*progress, *failed).depth(limit=5, patience=4) == START_DEPTH + 1


def test_hashes_cover_finished_and_pending_trials_of_any_origin() -> None:
    pipelines = [Pipeline((Cut(ratio=ratio),)) for ratio in (0.2, 0.3, 0.4, 0.6)]
    params = [encode(pipeline, FREE) for pipeline in pipelines]
    added = create_trial(params=params[0], distributions=distributions(params[0], FREE), values=(0.9, 90.0))
    failed = create_trial(params=params[1], distributions=distributions(params[1], FREE), state=FAIL)
    waiting = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params[2]})
    foreign = create_trial(params={"x": 1.0}, distributions={"x": FloatDistribution(0, 2)}, values=(1.0, 1.0))
    running = _trial(4, None, TrialState.RUNNING, operator="x", parent=0)
    trials = [added, failed, waiting, foreign, running]
    for number, trial in enumerate(trials):
        trial.number = number
    known = [*(pipeline.hash for pipeline in pipelines), "4", "5"]
    history = _history(trials, space=FREE)
    assert [history.duplicate_check(99)(text) for text in known] == [True, True, True, False, True, False]
    assert [history.duplicate_check(4)(text) for text in known] == [True, True, True, False, False, False]
    assert pipeline_of(foreign, FREE) is None


def test_bounds_are_derived_from_the_first_values_where_the_study_has_none() -> None:
    trials = [_trial(number, (0.9, 100.0 - number)) for number in range(30)]
    derived, first = (_history(part, None).population.units for part in (trials, trials[:10]))
    assert [derived[number].tolist() for number in (0, 1)] == [first[number].tolist() for number in (0, 1)]
    assert _history([], None).population.keys == []


def test_what_lies_outside_the_stored_bounds_is_known_by_how_far() -> None:
    """A model at chance quality is never dominated for being small; it must still come last as a parent."""
    trials = (_trial(0, (0.90, 100.0)), _trial(1, (0.10, 1.0)), _trial(2, (0.82, 110.0)))
    population = _read(*trials).population
    rng = np.random.default_rng(0)
    assert [population.is_penalised(number) for number in range(3)] == [False, True, False]
    assert population.elite(3, "hypervolume", rng) == [0, 2, 1]
    derived = _history(trials, None).population
    assert not any(derived.is_penalised(number) for number in range(3))
