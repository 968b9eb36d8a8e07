"""Fresh records near priors."""

from __future__ import annotations

import numpy as np
import pytest
from support.toy_space import Cut, Fit, Fold

from petra_optuna.evolution import RANDOM, PriorGenes
from petra_optuna.evolution.gene_sources import PRIOR_SHARE, PRIOR_SPREAD
from petra_optuna.pipeline import FieldPrior, Recipe

PRIORS = (
    FieldPrior("cut", "ratio", 0.3, {"grain": 8}),
    FieldPrior("fold", "slack", 1e-3, {"energy": "loose"}),
)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.9])
def test_draws_gather_at_the_prior_and_reach_the_whole_range(value: float) -> None:
    genes, rng = PriorGenes(priors=(FieldPrior("cut", "ratio", value),)), np.random.default_rng(0)
    drawn = np.array([genes.draw(Cut, rng).ratio for _ in range(4000)])
    assert np.all((drawn >= 0.1) & (drawn <= 0.9))
    assert np.all(np.histogram(drawn, bins=20, range=(0.1, 0.9))[0] > 4000 / 20 * (1 - PRIOR_SHARE) / 2)
    near = np.mean(np.abs(drawn - value) < PRIOR_SPREAD * 0.8)
    uniform = np.mean(np.abs(np.linspace(0.1, 0.9, 1001) - value) < PRIOR_SPREAD * 0.8)
    assert near > uniform + 0.2


def test_a_prior_holds_only_beside_the_values_that_it_names() -> None:
    genes, rng = PriorGenes(priors=PRIORS), np.random.default_rng(1)
    records = [genes.draw(Cut, rng) for _ in range(6000)]
    mean = {
        beside: np.mean([record.ratio for record in records if (record.grain == 8) == beside])
        for beside in (True, False)
    }
    assert mean[False] == pytest.approx(0.5, abs=0.02)  # uniform
    assert mean[True] < 0.45
    slacks = [genes.draw(Fold, rng) for _ in range(2000)]
    assert {record.rule for record in slacks} == {"energy", "rank"}
    loose = [np.log10(record.slack) for record in slacks if record.active_values().get("energy") == "loose"]
    assert np.median(loose) < -2.4  # uniform: -2


def test_whole_numbers_stay_whole() -> None:
    genes, rng = PriorGenes(priors=(FieldPrior("fit", "epochs", 3),)), np.random.default_rng(2)
    assert {type(genes.draw(Fit, rng).epochs) for _ in range(100)} == {int}


@pytest.mark.parametrize("kind", [Fit, Recipe])
def test_what_has_no_prior_is_drawn_as_before(kind: type) -> None:
    informed, plain = (np.random.default_rng(3) for _ in range(2))
    genes = PriorGenes(priors=PRIORS)
    assert [genes.draw(kind, informed) for _ in range(50)] == [RANDOM.draw(kind, plain) for _ in range(50)]


def test_changes_are_small_steps_as_before() -> None:
    informed, plain = (np.random.default_rng(4) for _ in range(2))
    genes = PriorGenes(priors=PRIORS)
    for _ in range(50):
        assert genes.change(Cut(), informed) == RANDOM.change(Cut(), plain)
