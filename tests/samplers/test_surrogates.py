from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from support.toy_space import DIRECTIONS, FREE, objective

from petra_optuna.pipebench import PipeBench
from petra_optuna.samplers import BOUNDS, PetraSampler
from petra_optuna.samplers.surrogates import LEAST, LONGEST_GAP, last_fitting

optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_fittings_are_close_at_first_and_never_far_apart() -> None:
    marks = sorted({last_fitting(count) for count in range(2000)})
    gaps = np.diff(marks)
    assert all(last_fitting(count) <= count for count in range(2000))
    assert set(gaps[: marks.index(64)]) == {1}
    assert gaps.max() == LONGEST_GAP
    assert all(gap <= max(1, mark / 16) for mark, gap in zip(marks, gaps, strict=False))


def test_chosen_children_beat_any_children() -> None:
    bench = PipeBench.variant("small")

    def volume(candidates: int, seed: int) -> float:
        study = optuna.create_study(
            directions=bench.directions,
            sampler=PetraSampler(bench.space, seed=seed, population_size=8, candidates=candidates),
        )
        study.set_user_attr(BOUNDS, bench.bounds)
        study.optimize(bench.objective, n_trials=60)
        return bench.hypervolume([tuple(trial.values) for trial in study.trials])

    chosen, any_child = (np.mean([volume(count, seed) for seed in range(3)]) for count in (16, 1))
    assert chosen > 1.02 * any_child


def test_too_few_trials_say_nothing() -> None:
    sampler = PetraSampler(FREE, seed=0, candidates=8)
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    study.optimize(objective, n_trials=LEAST - 1)
    plan = [{"length": 1, "n0.op": "cut"}]
    assert sampler._history(study).gains(plan) == pytest.approx([0])


def test_plain_parameters_are_foretold_too() -> None:
    def sphere(trial: optuna.Trial) -> float:
        return sum((trial.suggest_float(f"x{i}", 0, 1) - 0.3) ** 2 for i in range(4))

    def best(candidates: int, seed: int) -> float:
        study = optuna.create_study(sampler=PetraSampler(None, seed=seed, candidates=candidates))
        study.optimize(sphere, n_trials=40)
        assert all(trial.distributions["x0"] == FloatDistribution(0, 1) for trial in study.trials)
        return study.best_value

    assert np.mean([best(16, seed) for seed in range(3)]) < np.mean([best(1, seed) for seed in range(3)])
