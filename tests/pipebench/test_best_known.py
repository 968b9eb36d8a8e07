"""Fronts of the spaces that are too large to enumerate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from petra_optuna.errors import UserError
from petra_optuna.pipebench import VARIANTS, PipeBench, reference_front, reference_hypervolume
from petra_optuna.pipebench.best_known import fingerprint, random_member


@pytest.mark.parametrize("name", VARIANTS)
def test_the_volume_kept_is_of_the_problem_as_it_is(name: str) -> None:
    bench = PipeBench.variant(name)
    volume = reference_hypervolume(bench)
    rng = np.random.default_rng(1)
    outcomes = [bench.evaluate(random_member(bench, rng)) for _ in range(300)]
    drawn = [outcome.values for outcome in outcomes if outcome.feasible and outcome.values is not None]
    assert 0 < bench.hypervolume(drawn) / volume < 1


def test_a_changed_problem_has_no_volume_kept() -> None:
    bench = PipeBench.variant("medium")
    changed = {**bench.coefficients, "prune.damage": 1.1 * bench.coefficients["prune.damage"]}
    with pytest.raises(UserError, match=r"studies\.comparison\.reference medium"):
        reference_hypervolume(dataclasses.replace(bench, coefficients=changed))


def test_the_fingerprint_knows_limits_and_ignores_noise() -> None:
    bench = PipeBench.variant("device")
    assert fingerprint(bench) == fingerprint(PipeBench.variant("device", noise=1.0))
    assert fingerprint(bench) != fingerprint(dataclasses.replace(bench, limits={"size_bytes": 0.2}))


def test_evolution_finds_most_of_the_exact_front() -> None:
    small = PipeBench.variant("small")
    found = [values for _, values in reference_front(small, evaluations=6000)]
    assert small.hypervolume(found) > 0.97 * reference_hypervolume(small)


def test_a_reference_front_is_reproducible_feasible_and_bounded() -> None:
    device = PipeBench.variant("device")
    front = reference_front(device, evaluations=4000, keep=30)
    assert front == reference_front(device, evaluations=4000, keep=30)
    assert 0 < len(front) <= 30
    for pipeline, values in front:
        outcome = device.evaluate(pipeline)
        assert outcome.feasible
        assert outcome.values == values
