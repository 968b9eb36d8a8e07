"""Values of trials are read anew from all readings of their shapes; noise earns no credit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from support.toy_space import BOUNDS, DIRECTIONS, FREE, landscape

from petra_optuna.evolution import Bounds
from petra_optuna.noise import Reading
from petra_optuna.pipeline import suggest
from petra_optuna.samplers import RETAKEN, SHAPE, MeasuredValues, PetraSampler, ShapeReadings, Stagnation
from petra_optuna.samplers.history import History
from petra_optuna.samplers.priors import StudyPriors

NAMES = ("quality", "latency_ms")
PRIORS = StudyPriors(Bounds((0.9, 100.0), (False, True)), metric_names=NAMES)


def _trial(
    number: int, values: tuple[float, float], shape: str, *readings: tuple[str, float, float], parent: int = 0
) -> FrozenTrial:
    """A trial that read latencies, each with its name and error; a mutant of another trial."""
    read = ShapeReadings(shape, {name: {"latency_ms": Reading(*one)} for name, *one in readings})
    plan = {"index": number, "params": {}, "operator": "local", "parent": parent, "hash": str(number)}
    trial = create_trial(
        state=TrialState.COMPLETE,
        values=values,
        user_attrs={SHAPE: read.to_dict()} if readings else {},
        system_attrs={"petra:plan": plan},
    )
    trial.number = number
    return trial


def _history(trials: Sequence[FrozenTrial]) -> History:
    history = History(DIRECTIONS, PRIORS)
    history.update(trials)
    return history


def _credit(trials: Sequence[FrozenTrial]) -> list[float]:
    return [credit for _, credit in _history(trials).credited_plans(99)]


FIRST = _trial(0, (0.9, 90.0), "a", ("r0", 90.0, 0.01))


def test_trials_of_one_shape_have_one_value_whichever_ended_first() -> None:
    second = _trial(1, (0.8, 80.0), "a", ("r1", 80.0, 0.01))
    other = _trial(2, (0.7, 70.0), "b", ("r2", 70.0, 0.01))
    measured = MeasuredValues(NAMES, DIRECTIONS)
    measured.add_trials([FIRST, second, other])
    values = [measured.values(trial) for trial in (FIRST, second, other)]
    assert [quality for quality, _ in values] == [0.9, 0.8, 0.7]
    assert values[0][1] == values[1][1] == pytest.approx(math.sqrt(90.0 * 80.0))
    assert values[2][1] == 70.0
    again = MeasuredValues(NAMES, DIRECTIONS)
    for trial in (other, second, FIRST):
        again.add_trials([trial])
    assert [again.values(trial) for trial in (FIRST, second, other)] == values


def test_a_reading_that_two_trials_know_counts_once() -> None:
    measured = MeasuredValues(NAMES, DIRECTIONS)
    assert not measured.add_trials([FIRST])
    alone = measured.point(FIRST)
    assert not measured.add_trials([_trial(1, (0.8, 90.0), "a", ("r0", 90.0, 0.01))])
    assert measured.point(FIRST).low == pytest.approx(alone.low)
    assert measured.add_trials([_trial(2, (0.8, 90.0), "a", ("r0", 90.0, 0.01), ("r1", 90.0, 0.01))])
    assert measured.point(FIRST).low[1] > alone.low[1]


def test_values_without_readings_are_exact() -> None:
    measured = MeasuredValues(NAMES, DIRECTIONS)
    trial = _trial(0, (0.9, 50.0), "none")
    measured.add_trials([trial])
    point = measured.point(trial)
    assert point.values.tolist() == point.low.tolist() == point.high.tolist() == [-0.9, 50.0]


def test_files_of_one_shape_do_not_beat_each_other_by_some_bytes() -> None:
    def sized(number: int, quality: float, size: float, shape: str) -> FrozenTrial:
        trial = create_trial(
            state=TrialState.COMPLETE,
            values=(quality, size),
            user_attrs={SHAPE: ShapeReadings(shape, {}, counted=("size_bytes",)).to_dict()},
        )
        trial.number = number
        return trial

    trials = [sized(0, 0.9, 120_041.0, "a"), sized(1, 0.8, 120_040.0, "a"), sized(2, 0.8, 120_039.0, "b")]
    measured = MeasuredValues(("quality", "size_bytes"), DIRECTIONS)
    assert not measured.add_trials([trials[0]])
    assert measured.add_trials(trials[1:])
    assert measured.values(trials[1]) == (0.8, 120_040.0)
    first, smaller, other = (measured.point(trial) for trial in trials)
    assert first.dominates(smaller)
    assert not first.covers(other)


def test_noise_earns_no_credit_and_progress_does() -> None:
    tie = _trial(1, (0.9, 88.5), "b", ("r1", 88.5, 0.01))
    faster = _trial(2, (0.9, 80.0), "c", ("r2", 80.0, 0.01))
    better = _trial(3, (0.95, 90.5), "d", ("r3", 90.5, 0.01))
    assert _credit([FIRST, tie]) == [1.0, 0.0]
    assert _credit([FIRST, faster]) == [1.0, 1.0]
    assert _credit([FIRST, better]) == [1.0, 1.0]
    exact = [_trial(number, trial.values, "") for number, trial in enumerate((FIRST, tie))]  # type: ignore[arg-type]
    assert _credit(exact) == [1.0, 1.0]


def test_half_a_credit_needs_a_parent_that_is_clearly_worse() -> None:
    best = _trial(1, (0.99, 60.0), "best", ("r1", 60.0, 0.01))
    parent = _trial(2, (0.8, 90.0), "c", ("r2", 90.0, 0.01))
    same = _trial(3, (0.8, 89.0), "d", ("r3", 89.0, 0.01), parent=2)
    faster = _trial(4, (0.8, 80.0), "e", ("r4", 80.0, 0.01), parent=2)
    assert _credit([FIRST, best, parent, same, faster])[2:] == [0.0, 0.0, 0.5]


def test_a_shape_that_is_read_again_is_taken_in_as_if_it_had_been_known() -> None:
    trials = [FIRST, _trial(1, (0.8, 70.0), "b", ("r1", 70.0, 0.01))]
    history = _history(trials)
    late = [*trials, _trial(2, (0.7, 95.0), "a", ("r2", 95.0, 0.01))]
    assert not history.update(late)
    whole = _history(late)
    assert whole.population.points[0][1] == whole.population.points[2][1] == pytest.approx(92.47, abs=0.01)


def _noisy(trial: optuna.Trial) -> tuple[float, float]:
    """The toy landscape with a noisy size; pipelines of nearly one size share a shape."""
    quality, size = landscape(suggest(trial, FREE))
    rng = np.random.default_rng([trial.number, 7])
    measured = size * math.exp(0.02 * float(rng.standard_normal()))
    reading = ShapeReadings(f"{size:.1f}", {str(trial.number): {"size": Reading(measured, 0.02)}})
    trial.set_user_attr(SHAPE, reading.to_dict())
    return quality, measured


@pytest.mark.parametrize("fresh", [False, True])
def test_a_plan_is_a_function_of_the_trials_also_where_they_are_noisy(fresh: bool) -> None:
    def search(renew: bool) -> list[dict[str, object]]:
        study = optuna.create_study(directions=DIRECTIONS)
        study.set_metric_names(["quality", "size"])
        study.set_user_attr("petra:bounds", BOUNDS)
        sampler = PetraSampler(FREE, seed=0, population_size=6, candidates=4)
        for _ in range(40):
            study.sampler = PetraSampler(FREE, seed=0, population_size=6, candidates=4) if renew else sampler
            study.optimize(_noisy, n_trials=1)
        return [trial.params for trial in study.trials]

    assert search(fresh) == search(False)


def test_a_reading_taken_after_the_trials_counts_for_the_sampler_and_stop_rules() -> None:
    study = optuna.create_study(directions=DIRECTIONS)
    study.set_metric_names(list(NAMES))
    study.set_user_attr("petra:bounds", {"reference": [0.9, 100.0], "log": [False, True]})
    for trial in (FIRST, _trial(1, (0.9, 80.0), "b", ("r1", 80.0, 0.2))):
        study.add_trial(trial)
    assert not Stagnation(1, share=0.1).is_reached(study)
    again = ShapeReadings("b", {"r2": {"latency_ms": Reading(89.0, 0.001)}})
    study.set_user_attr(f"{RETAKEN}r2", again.to_dict())
    measured = MeasuredValues.of_study(study)
    assert measured.values(study.trials[1])[1] == pytest.approx(89.0, rel=0.01)
    assert Stagnation(1, share=0.1).is_reached(study)


def test_a_sampler_needs_no_argument() -> None:
    first, second = PetraSampler(), PetraSampler()
    study = optuna.create_study(sampler=first)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=30)
    assert study.best_value < 0.1
    other = optuna.create_study(sampler=second)
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=3)
    assert [trial.params for trial in other.trials] != [trial.params for trial in study.trials[:3]]
