"""Parents, operator rates and step sizes for the children of pipelines and of plain parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from optuna.trial import FrozenTrial

from petra_optuna.evolution import STEP_SHARE, OperatorRates, contributions, ranks
from petra_optuna.samplers.history import History
from petra_optuna.samplers.options import Options

T = TypeVar("T")

TRIES = 50
"""Draws before a duplicate is given up on; a mutation that is not possible on its parent costs one too."""

STEP_SIZES = (0.03, 0.1, 0.3)
"""Small steps to choose among where their size is adaptive: shares of a value's range."""


def select_parents(options: Options, history: History, rng: np.random.Generator) -> list[FrozenTrial]:
    """Select the population: the best trials, best first, then some others drawn for diversity."""
    population = history.population
    elite = population.elite(options.elite_count, options.survival, rng)
    diverse = population.sample_excluding(elite, options.population_size - len(elite), rng)
    if options.parents == "tournament":
        elite = _best_first(history, elite)
    return [history.trial(number) for number in (*elite, *diverse)]


def choose_parent(parents: Sequence[T], options: Options, rng: np.random.Generator) -> T:
    """Draw one of the population, or the better one of two (tournament)."""
    rounds = 2 if options.parents == "tournament" else 1
    return parents[int(np.min(rng.integers(len(parents), size=rounds)))]


def operator_rates(options: Options, history: History, names: Sequence[str]) -> OperatorRates:
    """Rates of the operators by the credit of the newest mutations."""
    credits = tuple(
        (name, use.credit)
        for use in history.operator_history(options.window)
        for name in (use.operator, use.second)
        if name is not None
    )
    return OperatorRates(tuple(names), credits, options.rates, options.window, options.floor)


def step_size_rates(options: Options, history: History) -> OperatorRates:
    """Rates of ``STEP_SIZES`` by the credit of the newest mutations that took small steps."""
    credits = tuple(
        (str(use.strength), use.credit)
        for use in history.operator_history(options.window)
        if use.strength is not None
    )
    return OperatorRates(tuple(map(str, STEP_SIZES)), credits, "matching", options.window, options.floor)


def choose_step_size(options: Options, history: History, rng: np.random.Generator) -> float:
    """Draw the size of the small steps of one child, a share of a value's range."""
    if options.strength == "fixed":
        return STEP_SHARE
    return float(step_size_rates(options, history).choose(rng))


def _best_first(history: History, elite: Sequence[int]) -> list[int]:
    """Order trials by level, and within a level by the volume that each adds to the others, most first."""
    population = history.population
    feasible = [number for number in elite if not population.is_penalised(number)]
    if not feasible:
        return list(elite)
    rank = ranks(np.array([population.points[number] for number in feasible]))
    volume = np.zeros(len(feasible))
    for level in range(int(rank.max()) + 1):
        rows = np.flatnonzero(rank == level)
        volume[rows] = contributions(np.array([population.units[feasible[row]] for row in rows]))
    ordered = sorted(range(len(feasible)), key=lambda row: (rank[row], -volume[row], row))
    return [*(feasible[row] for row in ordered), *elite[len(feasible) :]]
