"""State of the sampler, for people: the numbers that a plan is made from, now and at any time before."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.evolution import STEP_SHARE, non_dominated, unit_hypervolume
from petra_optuna.pipeline import SearchSpace
from petra_optuna.samplers.history import History
from petra_optuna.samplers.options import Options
from petra_optuna.samplers.params import OPERATORS
from petra_optuna.samplers.population import Population
from petra_optuna.samplers.variation import operator_rates, select_parents, step_size_rates


@dataclasses.dataclass(frozen=True)
class SamplerState:
    """State of a search after its finished trials; it follows from them and what its study was made with.

    Attributes:
        finished: Number of finished trials, those that were killed and are run again excluded.
        newest: Number of the finished trial with the highest plan index; None where there is none.
        population: Numbers of the trials among which the trial planned after ``newest`` chooses its parent,
            best first, then those drawn at random for diversity.
        front: Numbers of the non-dominated feasible trials inside the bounds, ascending.
        hypervolume: Hypervolume of the population in unit coordinates of the bounds: 1 for the original
            alone. In a study without stored bounds they follow from its first complete trials.
        rates: Probability of each operator. With ``rates="thompson"``, where every choice draws anew, the
            probability over these draws.
        use_counts: Number of uses of each operator within the window, second mutations included; uses
            inherited from another study count until the study's own push them out.
        credit: Mean credit of these uses; None where there are none.
        strengths: Probability of each size of a small step, a share of a value's range.
        depth: Longest body that is planned; None where there is no search space.
    """

    finished: int
    newest: int | None
    population: tuple[int, ...]
    front: tuple[int, ...]
    hypervolume: float
    rates: Mapping[str, float]
    use_counts: Mapping[str, int]
    credit: Mapping[str, float | None]
    strengths: Mapping[float, float]
    depth: int | None


def state_of(options: Options, seed: int, space: SearchSpace | None, history: History) -> SamplerState:
    """The state that follows from a history.

    Args:
        options: Options of the sampler.
        seed: Seed of the sampler.
        space: Search space of the pipelines; None for an objective with parameters of its own.
        history: Trials that count.
    """
    names = OPERATORS if space is None else tuple(mutation.name for mutation in options.mutations)
    rates = operator_rates(options, history, names)
    use_counts = [int(count) for count in rates.use_counts]
    population = _population(options, seed, history)
    return SamplerState(
        finished=len(history.finished),
        newest=history.finished[-1][1] if history.finished else None,
        population=population,
        front=_front(history.population),
        hypervolume=_volume(history.population, population),
        rates=rates.expected(),
        use_counts=dict(zip(names, use_counts, strict=True)),
        credit={
            name: float(credit) / count if count else None
            for name, count, credit in zip(names, use_counts, rates.credit, strict=True)
        },
        strengths=_strengths(options, history),
        depth=_depth(options, space, history),
    )


def trace_of(
    options: Options,
    seed: int,
    space: SearchSpace | None,
    trials: Sequence[FrozenTrial],
    new: Callable[[], History],
) -> list[SamplerState]:
    """The state after each finished trial that counts, in the order of their plan indices.

    Reads the trials again one after another, as if the later ones were still running: the time grows with
    the square of their number, and is about a second for 300.

    Args:
        options: Options of the sampler.
        seed: Seed of the sampler.
        space: Search space of the pipelines; None for an objective with parameters of its own.
        trials: All trials of the study, in order of their numbers.
        new: Makes an empty history.
    """
    whole = new()
    whole.update(trials)
    then = [_running(trial) if trial.state.is_finished() else trial for trial in trials]
    history, states = _read(then, new), []
    for _, number in whole.finished:
        then[number] = trials[number]
        if not history.update(then):
            # Bounds that are not stored move with the first complete trials.
            history = _read(then, new)
        states.append(state_of(options, seed, space, history))
    return states


def _read(trials: Sequence[FrozenTrial], new: Callable[[], History]) -> History:
    history = new()
    history.update(trials)
    return history


def _running(trial: FrozenTrial) -> FrozenTrial:
    before = copy.copy(trial)
    before.state = TrialState.RUNNING
    return before


def _population(options: Options, seed: int, history: History) -> tuple[int, ...]:
    index = history.finished[-1][0] + 1 if history.finished else 0
    # The generator of that trial's plan, after the draw that decides whether it is random.
    rng = np.random.default_rng([seed, index])
    rng.random()
    return tuple(trial.number for trial in select_parents(options, history, rng))


def _front(population: Population) -> tuple[int, ...]:
    numbers = sorted(population.inside)
    if not numbers:
        return ()
    points = np.array([population.inside[number] for number in numbers])
    return tuple(numbers[row] for row in non_dominated(points, ("minimize",) * points.shape[1]))


def _volume(population: Population, numbers: Sequence[int]) -> float:
    inside = [population.units[number] for number in numbers if number in population.inside]
    return unit_hypervolume(np.array(inside)) if inside else 0.0


def _strengths(options: Options, history: History) -> dict[float, float]:
    if options.strength == "fixed":
        return {STEP_SHARE: 1.0}
    return {float(name): rate for name, rate in step_size_rates(options, history).expected().items()}


def _depth(options: Options, space: SearchSpace | None, history: History) -> int | None:
    if space is None or not options.adapt_depth:
        return None if space is None else space.max_length
    return history.depth(space.max_length, options.population_size)
