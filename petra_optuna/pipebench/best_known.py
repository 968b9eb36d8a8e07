"""The best known fronts of the spaces that are too large to enumerate.

A long run of a plain evolution against the surrogate itself finds them; no sampler takes part. The
hypervolumes are kept beside this file, each with the command that made it, and are refused when the problem
has changed since.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from petra_optuna.errors import UserError
from petra_optuna.evolution import MUTATIONS, Bounds, contributions, non_dominated
from petra_optuna.pipebench.bench import PipeBench
from petra_optuna.pipeline import Pipeline
from petra_optuna.pipeline.encoding import walk

FILE = "reference.json"
BATCH = 500
"""Pipelines that are made before the front is sorted again."""
PROBES = 64

Points = tuple[tuple[Pipeline, tuple[float, ...]], ...]


def reference_front(bench: PipeBench, evaluations: int = 200_000, seed: int = 0, keep: int = 400) -> Points:
    """A front found by evolution: one to four mutations of a random member of the front, again and again.

    Args:
        bench: The problem; its noise plays no part.
        evaluations: Pipelines to evaluate, some 3,000 a second.
        seed: Seed of all randomness.
        keep: Most points of the front; those that contribute least volume go.
    """
    rng = np.random.default_rng(seed)
    bounds = Bounds.from_dict(bench.bounds)
    start = [Pipeline(), *(random_member(bench, rng) for _ in range(4 * BATCH))]
    front = _best((), start, bench, bounds, keep)
    for _ in range((evaluations - len(start)) // BATCH):
        children = [_child(front[int(rng.integers(len(front)))][0], bench, rng) for _ in range(BATCH)]
        front = _best(front, children, bench, bounds, keep)
    return front


def reference_hypervolume(bench: PipeBench) -> float:
    """Volume of the exact front where there is one, of the best known front otherwise.

    Raises:
        UserError: When none is known for the problem as it is now.
    """
    if bench.enumerable:
        return bench.hypervolume([values for _, values in bench.front()])
    record = json.loads(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    stored = record.get(bench.name)
    if stored is None or stored["fingerprint"] != fingerprint(bench):
        raise UserError(
            f"no reference front is known of PipeBench {bench.name!r} with these coefficients; make one with "
            f"`{command(bench.name)}`"
        )
    return float(stored["hypervolume"])


def command(name: str) -> str:
    """The command that makes the reference front of a variant."""
    return f"python -m studies.comparison.reference {name}"


def fingerprint(bench: PipeBench) -> str:
    """Hash that changes with anything that changes values: space, coefficients, formulas, limits."""
    rng = np.random.default_rng(0)
    exact = bench.without_noise()
    outcomes = [exact.evaluate(random_member(bench, rng)) for _ in range(PROBES)]
    rounded = [
        [f"{value:.6g}" for value in (*(item.values or ()), *item.constraints.values())] for item in outcomes
    ]
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:16]


def random_member(bench: PipeBench, rng: np.random.Generator) -> Pipeline:
    """A pipeline of which every parameter is drawn uniformly."""
    return walk(bench.space, lambda name, distribution: _draw(distribution, rng))


def _draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    if isinstance(distribution, IntDistribution):
        steps = (distribution.high - distribution.low) // distribution.step
        return distribution.low + distribution.step * int(rng.integers(steps + 1))
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        return low + distribution.step * int(rng.integers(round((high - low) / distribution.step) + 1))
    if distribution.log:
        return float(np.clip(np.exp(rng.uniform(np.log(low), np.log(high))), low, high))
    return float(rng.uniform(low, high))


def _child(parent: Pipeline, bench: PipeBench, rng: np.random.Generator) -> Pipeline:
    child = parent
    for _ in range(int(rng.integers(1, 5))):
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        child = mutation.propose(child, bench.space, rng) or child
    return child


def _best(front: Points, added: list[Pipeline], bench: PipeBench, bounds: Bounds, keep: int) -> Points:
    exact = bench.without_noise()
    outcomes = [(pipeline, exact.evaluate(pipeline)) for pipeline in added]
    members = {values: pipeline for pipeline, values in front}
    for pipeline, outcome in outcomes:
        if outcome.feasible and outcome.values is not None:
            members.setdefault(outcome.values, pipeline)
    points = list(members)
    units = bounds.unit(points, bench.directions)
    inside = np.flatnonzero(np.all(units < 1, axis=1))
    rows = inside[list(non_dominated([points[row] for row in inside], bench.directions))]
    chosen = _thin(rows, units, keep)
    return tuple((members[points[row]], points[row]) for row in chosen)


def _thin(rows: npt.NDArray[np.int64], units: npt.NDArray[np.float64], keep: int) -> npt.NDArray[np.int64]:
    while len(rows) > keep:
        excess = len(rows) - keep
        least = np.argsort(contributions(units[rows]), kind="stable")[: max(1, excess // 4)]
        rows = np.delete(rows, least)
    return rows
