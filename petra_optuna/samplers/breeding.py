"""What pipelines and plain parameters have in common when a child is planned: parents, rates, strengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from optuna.trial import FrozenTrial

from petra_optuna.evolution import OperatorRates, contributions, ranks
from petra_optuna.evolution.drawing import STEP_SHARE
from petra_optuna.samplers.history import History
from petra_optuna.samplers.options import Options

T = TypeVar("T")

TRIES = 50
"""Draws before a duplicate is given up on; a mutation that is not possible on its parent costs one too."""

STRENGTHS = (0.03, 0.1, 0.3)
"""Small steps to choose among where the strength is adaptive: shares of a value's range."""


def parents_of(options: Options, history: History, rng: np.random.Generator) -> list[FrozenTrial]:
    """The population: the best, best first, then some others drawn for diversity."""
    elite = history.population.elite(options.elite_count, options.survival, rng)
    drawn = history.population.others(elite, options.population_size - len(elite), rng)
    if options.parents == "tournament":
        elite = _best_first(history, elite)
    return [history.trial(number) for number in (*elite, *drawn)]


def pick(parents: Sequence[T], options: Options, rng: np.random.Generator) -> T:
    """One of the population: any, or the better one of two."""
    rounds = 2 if options.parents == "tournament" else 1
    return parents[int(np.min(rng.integers(len(parents), size=rounds)))]


def rates_of(options: Options, history: History, names: Sequence[str]) -> OperatorRates:
    """The operators' rates by the credit of the newest mutations."""
    used = tuple(
        (name, use.credit)
        for use in history.uses(options.window)
        for name in (use.operator, use.second)
        if name is not None
    )
    return OperatorRates(tuple(names), used, options.rates, options.window, options.floor)


def strengths_of(options: Options, history: History) -> OperatorRates:
    """The rates of ``STRENGTHS``, by the credit of the newest mutations that took small steps."""
    used = tuple(
        (str(use.strength), use.credit) for use in history.uses(options.window) if use.strength is not None
    )
    return OperatorRates(tuple(map(str, STRENGTHS)), used, "matching", options.window, options.floor)


def strength(options: Options, history: History, rng: np.random.Generator) -> float:
    """The size of the small steps of one child."""
    return STEP_SHARE if options.strength == "fixed" else float(strengths_of(options, history).choose(rng))


def _best_first(history: History, elite: Sequence[int]) -> list[int]:
    """Levels in order, and within a level what adds most volume to the others first."""
    population = history.population
    on = [number for number in elite if not population.is_off(number)]
    if not on:
        return list(elite)
    level = ranks(np.array([population.points[number] for number in on]))
    volume = np.zeros(len(on))
    for each in range(int(level.max()) + 1):
        rows = np.flatnonzero(level == each)
        volume[rows] = contributions(np.array([population.units[on[row]] for row in rows]))
    ordered = sorted(range(len(on)), key=lambda row: (level[row], -volume[row], row))
    return [*(on[row] for row in ordered), *elite[len(on) :]]
