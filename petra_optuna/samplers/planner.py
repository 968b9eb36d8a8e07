"""A plan of a pipeline as a pure function of seed, plan index and history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from petra_optuna.evolution import RANDOM, GeneSource, OperatorRates, draw_value, random_pipeline
from petra_optuna.pipeline import Pipeline, SearchSpace, encode, present_params
from petra_optuna.pipeline.encoding import walk
from petra_optuna.samplers.breeding import TRIES, parents_of, pick, rates_of, strength
from petra_optuna.samplers.history import History
from petra_optuna.samplers.identity import pipeline_of
from petra_optuna.samplers.options import Options
from petra_optuna.samplers.records import Plan

ALTERED = "fixed values changed the child"


def plan_pipeline(
    space: SearchSpace,
    options: Options,
    history: History,
    planned: int,
    enqueued: Mapping[str, Any],
    held: Mapping[str, Any],
) -> Plan:
    """Plan a trial in a search space.

    Args:
        space: The search space.
        options: Of the sampler.
        history: All trials.
        planned: Number of the trial to plan.
        enqueued: Parameters that the user gave this trial; the others are drawn to fit them.
        held: Parameters that hold a value in all trials now planned; a child is changed to fit them.

    Raises:
        PipelineError: When a fixed parameter is outside its range, or nothing legal fits them.
    """
    enqueued, held = present_params(enqueued, space), present_params(held, space)
    index = history.index_of(planned)
    rng = np.random.default_rng([options.seed, index])
    depth = space.max_length
    started = history.started_genes() if options.starts and options.genes == "random" else RANDOM
    learnt = history.learnt_genes() if options.genes == "tpe" else started
    if options.adapt_depth:
        depth = history.depth(space.max_length, options.population_size)
    if enqueued:
        completed = _fitted(space, {}, {**held, **enqueued}, rng)
        return _plan(completed, space, index, depth)
    taken = history.taken(planned) if options.avoid_duplicates else _nothing
    if index >= options.population_size and rng.random() >= options.immigrants:
        plan = _bred(space, options, history, depth, taken, held, index, learnt, rng)
        if plan is not None:
            return plan
    for _ in range(TRIES):
        pipeline = random_pipeline(space, _length(index, depth, options, rng), rng, started)
        if held:
            pipeline = _fitted(space, encode(pipeline, space), held, rng)
        if not taken(pipeline.hash):
            return _plan(pipeline, space, index, depth)
    return _plan(pipeline, space, index, depth, note=f"a duplicate: {2 * TRIES} draws gave nothing new")


def _plan(pipeline: Pipeline, space: SearchSpace, index: int, depth: int, **origin: Any) -> Plan:
    return Plan(index, encode(pipeline, space), hash=pipeline.hash, depth=depth, **origin)


def _nothing(_: str) -> bool:
    return False


def _fitted(
    space: SearchSpace, params: Mapping[str, Any], fixed: Mapping[str, Any], rng: np.random.Generator
) -> Pipeline:
    """The pipeline of ``params`` with the fixed values; what is missing then is drawn."""
    given = {**params, **fixed}
    return walk(space, lambda name, kind: given[name] if name in given else draw_value(kind, rng))


def _bred(
    space: SearchSpace,
    options: Options,
    history: History,
    depth: int,
    taken: Callable[[str], bool],
    held: Mapping[str, Any],
    index: int,
    learnt: GeneSource,
    rng: np.random.Generator,
) -> Plan | None:
    # A parent longer than the present depth, a control for example, may stay as long as it is.
    parents = [
        (parent.number, pipeline, dataclasses.replace(space, max_length=max(depth, len(pipeline.body))))
        for parent in parents_of(options, history, rng)
        if (pipeline := pipeline_of(parent, space)) is not None
    ]
    rates = rates_of(options, history, [mutation.name for mutation in options.mutations])
    children: list[tuple[Pipeline, dict[str, Any]]] = []
    hashes: set[str] = set()
    for _ in range(TRIES + 2 * options.candidates):
        if not parents or len(children) == options.candidates:
            break
        number, pipeline, limited = pick(parents, options, rng)
        genes = dataclasses.replace(learnt, step=strength(options, history, rng))
        child, origin = _mutated(pipeline, limited, options, rates, genes, rng)
        if child is None:
            continue
        if held:
            fitted = _fitted(space, encode(child, space), held, rng)
            if fitted.hash != child.hash:
                child, origin = fitted, {"note": ALTERED}
        if not taken(child.hash) and child.hash not in hashes:
            children.append((child, {"parent": number, **origin}))
            hashes.add(child.hash)
    if not children:
        return None
    best = 0
    if len(children) > 1:
        best = int(np.argmax(history.gains([child for child, _ in children])))
    child, origin = children[best]
    return _plan(child, space, index, depth, **origin)


def _mutated(
    pipeline: Pipeline,
    space: SearchSpace,
    options: Options,
    rates: OperatorRates,
    genes: GeneSource,
    rng: np.random.Generator,
) -> tuple[Pipeline | None, dict[str, Any]]:
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


def _length(index: int, depth: int, options: Options, rng: np.random.Generator) -> int:
    if index < options.population_size:
        return 1 + index % depth
    return int(rng.integers(1, depth + 1))
