"""A plan as a pure function of seed, plan index and history."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from petra_optuna.evolution import (
    Mutation,
    OperatorRates,
    RatesMode,
    change_value,
    draw_value,
    random_pipeline,
    survivors,
)
from petra_optuna.pipeline import Pipeline, SearchSpace, encode
from petra_optuna.pipeline.encoding import walk
from petra_optuna.samplers.history import History, pipeline_of
from petra_optuna.samplers.records import Plan

TRIES = 50
"""Draws before a duplicate is given up on; a mutation that is not possible on its parent costs one too."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user chose; see ``PetraSampler``."""

    seed: int
    population_size: int
    random_share: float
    mutations: tuple[Mutation, ...]
    rates: RatesMode


def plan_pipeline(
    space: SearchSpace, settings: Settings, history: History, index: int, fixed: Mapping[str, Any]
) -> Plan:
    """Plan a trial in a search space.

    Args:
        space: The search space.
        settings: Of the sampler.
        history: The other trials.
        index: Plan index of the trial.
        fixed: Parameters that the user enqueued; the others are drawn to fit them.

    Raises:
        PipelineError: When a parameter in ``fixed`` is outside its range.
    """
    rng = np.random.default_rng([settings.seed, index])
    depth = history.depth(space.max_length, settings.population_size)
    if fixed:
        return _planned(_completed(space, fixed, rng), space, index, depth)
    taken = history.hashes(space)
    if index >= settings.population_size:
        child = _bred(space, settings, history, depth, taken, rng)
        if child is not None:
            pipeline, operator, parent = child
            return _planned(pipeline, space, index, depth, operator=operator, parent=parent.number)
    for _ in range(TRIES):
        pipeline = random_pipeline(space, _length(index, depth, settings, rng), rng)
        if pipeline.hash not in taken:
            return _planned(pipeline, space, index, depth)
    return _planned(pipeline, space, index, depth, note=f"a duplicate: {2 * TRIES} draws gave nothing new")


def plan_params(settings: Settings, history: History, index: int) -> Plan:
    """Plan a trial of a study that does not use our encoding.

    Some parameters of one past trial change; the others, and with them its conditional branch, stay.
    What the objective asks beyond these is left free.
    """
    rng = np.random.default_rng([settings.seed, index])
    parents = [trial for trial in _parents(settings, history, rng) if trial.params]
    if index < settings.population_size or not parents:
        return Plan(index, {})
    parent = parents[int(rng.integers(len(parents)))]
    names = list(parent.params)
    certain = names[int(rng.integers(len(names)))]
    params = {
        name: change_value(parent.distributions[name], value, rng)
        if name == certain or rng.random() < 1 / len(names)
        else value
        for name, value in parent.params.items()
    }
    return Plan(index, params, operator="change_params", parent=parent.number)


def _planned(pipeline: Pipeline, space: SearchSpace, index: int, depth: int, **origin: Any) -> Plan:
    return Plan(index, encode(pipeline, space), hash=pipeline.hash, depth=depth, **origin)


def _completed(space: SearchSpace, fixed: Mapping[str, Any], rng: np.random.Generator) -> Pipeline:
    return walk(space, lambda name, given: fixed[name] if name in fixed else draw_value(given, rng))


def _bred(
    space: SearchSpace,
    settings: Settings,
    history: History,
    depth: int,
    taken: frozenset[str],
    rng: np.random.Generator,
) -> tuple[Pipeline, str, FrozenTrial] | None:
    parents = [
        (trial, pipeline)
        for trial in _parents(settings, history, rng)
        if (pipeline := pipeline_of(trial, space)) is not None
    ]
    if not parents:
        return None
    mutations = {mutation.name: mutation for mutation in settings.mutations}
    rates = OperatorRates(tuple(mutations), history.credits(), settings.rates)
    for _ in range(TRIES):
        trial, pipeline = parents[int(rng.integers(len(parents)))]
        # A parent longer than the present depth, a control for example, may stay as long as it is.
        limited = dataclasses.replace(space, max_length=max(depth, len(pipeline.body)))
        operator = rates.choose(rng)
        child = mutations[operator](pipeline, limited, rng)
        if child is not None and child.hash not in taken:
            return child, operator, trial
    return None


def _parents(settings: Settings, history: History, rng: np.random.Generator) -> list[FrozenTrial]:
    rows = survivors(
        history.points,
        history.units,
        # A pipeline that breaks the model is never dominated for being small, yet nothing comes of it.
        history.violations + history.beyond,
        size=settings.population_size,
        random_count=round(settings.random_share * settings.population_size),
        rng=rng,
    )
    return [history.complete[row] for row in rows]


def _length(index: int, depth: int, settings: Settings, rng: np.random.Generator) -> int:
    if index < settings.population_size:
        return 1 + index % depth
    return int(rng.integers(1, depth + 1))
