"""A plan of a pipeline as a pure function of seed, plan index and history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from petra_optuna.evolution import RANDOM, GeneSource, OperatorRates, draw_value, random_pipeline
from petra_optuna.pipeline import Pipeline, SearchSpace, encode, present_params
from petra_optuna.pipeline.encoding import walk
from petra_optuna.samplers.history import History
from petra_optuna.samplers.identity import pipeline_of
from petra_optuna.samplers.options import Options
from petra_optuna.samplers.records import Plan, PlanRequest
from petra_optuna.samplers.variation import (
    TRIES,
    choose_parent,
    choose_step_size,
    operator_rates,
    select_parents,
)

ALTERED = "fixed values changed the child"


def plan_pipeline(space: SearchSpace, options: Options, history: History, request: PlanRequest) -> Plan:
    """Plan a trial in a search space.

    Args:
        space: Search space of the study.
        options: Options of the sampler.
        history: All trials of the study.
        request: Trial to plan; what its enqueued parameters leave open is drawn to fit them, and a child is
            changed to fit those that are held.

    Raises:
        PipelineError: When a fixed parameter is outside its range, or nothing legal fits them.
    """
    request = dataclasses.replace(
        request,
        enqueued=present_params(request.enqueued, space),
        held=present_params(request.held, space),
    )
    index = history.index_of(request.number)
    rng = np.random.default_rng([request.seed, index])
    draws_near = options.use_priors and options.genes == "random"
    fresh_genes = history.prior_genes() if draws_near else RANDOM
    child_genes = history.tpe_genes() if options.genes == "tpe" else fresh_genes
    depth = space.max_length
    if options.adapt_depth:
        depth = history.depth(space.max_length, options.population_size)
    if request.enqueued:
        completed = _fit_to(space, {}, {**request.held, **request.enqueued}, rng)
        return _plan(completed, space, index, depth)
    is_taken = history.duplicate_check(request.number) if options.avoid_duplicates else _never
    planning = _Planning(space, options, history, index, depth, request.held, is_taken, rng)
    if index >= options.population_size and rng.random() >= options.immigrants:
        plan = _plan_child(planning, child_genes)
        if plan is not None:
            return plan
    return _plan_random(planning, fresh_genes)


@dataclasses.dataclass(frozen=True)
class _Planning:
    """What all steps of one plan share.

    Attributes:
        space: Search space of the study.
        options: Options of the sampler.
        history: All trials of the study.
        index: Plan index of the trial.
        depth: Longest body to plan.
        held: Parameters that hold a value.
        is_taken: Whether a canonical hash is that of a known trial, which is not to be repeated.
        rng: Source of all randomness of the plan.
    """

    space: SearchSpace
    options: Options
    history: History
    index: int
    depth: int
    held: Mapping[str, Any]
    is_taken: Callable[[str], bool]
    rng: np.random.Generator


def _plan(pipeline: Pipeline, space: SearchSpace, index: int, depth: int, **origin: Any) -> Plan:
    return Plan(index, encode(pipeline, space), hash=pipeline.hash, depth=depth, **origin)


def _never(_: str) -> bool:
    return False


def _fit_to(
    space: SearchSpace, params: Mapping[str, Any], fixed: Mapping[str, Any], rng: np.random.Generator
) -> Pipeline:
    """The pipeline of ``params`` with the fixed values; what is missing then is drawn."""
    given = {**params, **fixed}
    return walk(
        space, lambda name, distribution: given[name] if name in given else draw_value(distribution, rng)
    )


def _plan_random(planning: _Planning, genes: GeneSource) -> Plan:
    """Plan a random pipeline; a duplicate, with a note, where nothing else comes up."""
    space, rng, index, depth = planning.space, planning.rng, planning.index, planning.depth
    for _ in range(TRIES):
        pipeline = random_pipeline(space, _random_length(planning), rng, genes)
        if planning.held:
            pipeline = _fit_to(space, encode(pipeline, space), planning.held, rng)
        if not planning.is_taken(pipeline.hash):
            return _plan(pipeline, space, index, depth)
    return _plan(pipeline, space, index, depth, note=f"a duplicate: {2 * TRIES} draws gave nothing new")


def _plan_child(planning: _Planning, genes: GeneSource) -> Plan | None:
    """Plan the most promising of several children; None where none could be made."""
    children = _children(planning, genes)
    if not children:
        return None
    best = 0
    if len(children) > 1:
        best = int(np.argmax(planning.history.gains([child for child, _ in children])))
    child, origin = children[best]
    return _plan(child, planning.space, planning.index, planning.depth, **origin)


def _children(planning: _Planning, genes: GeneSource) -> list[tuple[Pipeline, dict[str, Any]]]:
    """Distinct children that are not taken, each with the part of its plan that says where it comes from."""
    space, options, history, rng = planning.space, planning.options, planning.history, planning.rng
    # A parent longer than the present depth, a control for example, may stay as long as it is.
    parents = [
        (
            parent.number,
            pipeline,
            dataclasses.replace(space, max_length=max(planning.depth, len(pipeline.body))),
        )
        for parent in select_parents(options, history, rng)
        if (pipeline := pipeline_of(parent, space)) is not None
    ]
    rates = operator_rates(options, history, [mutation.name for mutation in options.mutations])
    children: list[tuple[Pipeline, dict[str, Any]]] = []
    hashes: set[str] = set()
    for _ in range(TRIES + 2 * options.candidates):
        if not parents or len(children) == options.candidates:
            break
        number, pipeline, limited = choose_parent(parents, options, rng)
        sized = dataclasses.replace(genes, step=choose_step_size(options, history, rng))
        child, origin = _mutate(pipeline, limited, options, rates, sized, rng)
        if child is None:
            continue
        if planning.held:
            fitting = _fit_to(space, encode(child, space), planning.held, rng)
            if fitting.hash != child.hash:
                child, origin = fitting, {"note": ALTERED}
        if not planning.is_taken(child.hash) and child.hash not in hashes:
            children.append((child, {"parent": number, **origin}))
            hashes.add(child.hash)
    return children


def _mutate(
    pipeline: Pipeline,
    space: SearchSpace,
    options: Options,
    rates: OperatorRates,
    genes: GeneSource,
    rng: np.random.Generator,
) -> tuple[Pipeline | None, dict[str, Any]]:
    """Mutate a pipeline once or twice: the child, None where it is not possible, and what was applied."""
    mutations = {mutation.name: mutation for mutation in options.mutations}
    first = mutations[rates.choose(rng)]
    child = first.using(genes)(pipeline, space, rng)
    if child is None:
        return None, {}
    applied, origin = [first], {"operator": first.name}
    if options.second_mutation and rng.random() < options.second_mutation:
        second = mutations[rates.choose(rng)]
        grandchild = second.using(genes)(child, space, rng)
        if grandchild is not None and grandchild.hash != pipeline.hash:
            child, origin["second"] = grandchild, second.name
            applied.append(second)
    if options.strength == "adaptive" and any(mutation.steps for mutation in applied):
        return child, {**origin, "strength": genes.step}
    return child, dict(origin)


def _random_length(planning: _Planning) -> int:
    """Length of a random body: every length in turn at the start, then any."""
    if planning.index < planning.options.population_size:
        return 1 + planning.index % planning.depth
    return int(planning.rng.integers(1, planning.depth + 1))
