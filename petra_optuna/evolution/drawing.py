"""Fresh and changed values, records and pipelines, by their declared distributions."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TypeVar

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace
from petra_optuna.pipeline.fields import Field, Fielded, Value, declared_fields, is_active

T = TypeVar("T", bound=Fielded)

PERTURBED_SHARE = 0.7
"""Share of numeric changes that are small steps; the others are fresh draws, so no value is out of reach."""

STEP_SHARE = 0.15
"""Standard deviation of a small step, as a share of the range (of its logarithm on a log scale)."""


def draw_value(distribution: BaseDistribution, rng: np.random.Generator) -> Value:
    """A value drawn from a distribution: uniform, on its log scale where it has one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return _from_unit(distribution, float(rng.random()))


def change_value(distribution: BaseDistribution, value: Value, rng: np.random.Generator) -> Value:
    """Another value of the distribution: another category, a small step, or a fresh draw.

    The value itself comes back only where the distribution has no other, or where a continuous draw
    meets it by chance.
    """
    if distribution.single():
        return value
    if isinstance(distribution, CategoricalDistribution):
        others = [choice for choice in distribution.choices if choice != value]
        return others[int(rng.integers(len(others)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    assert isinstance(value, int | float)
    if rng.random() >= PERTURBED_SHARE:
        changed = _from_unit(distribution, float(rng.random()))
    else:
        moved = _to_unit(distribution, value) + STEP_SHARE * float(rng.standard_normal())
        changed = _from_unit(distribution, _reflect(moved))
    return changed if changed != value else _neighbour(distribution, value, rng)


def draw_record(cls: type[T], rng: np.random.Generator) -> T:
    """A record whose fields that count are drawn; the others keep their defaults."""
    active: dict[str, Value] = {}
    for field in declared_fields(cls):
        if is_active(field, active):
            active[field.name] = draw_value(field.distribution, rng)
    return cls(**active)


def change_record(record: T, rng: np.random.Generator, among: Collection[str] | None = None) -> T | None:
    """The record with at least one field changed; None where no field can change.

    Fields that start to count because of the change are drawn afresh.

    Args:
        record: What to change.
        rng: Source of all randomness.
        among: Names of the fields that may change; all when None.
    """
    before = record.active_values()
    free = [
        field.name
        for field in declared_fields(type(record))
        if field.name in before and not field.distribution.single() and (among is None or field.name in among)
    ]
    if not free:
        return None
    certain = free[int(rng.integers(len(free)))]
    chosen = {name for name in free if name == certain or rng.random() < 1 / len(free)}
    after: dict[str, Value] = {}
    for field in declared_fields(type(record)):
        if is_active(field, after):
            after[field.name] = _changed_field(field, before, chosen, rng)
    return type(record)(**after)


def random_pipeline(space: SearchSpace, length: int, rng: np.random.Generator) -> Pipeline:
    """A legal pipeline with random nodes, conversion and recipe.

    Args:
        space: Which operations there are and what they need.
        length: Nodes in the body; fewer where nothing that is left fits the needs declared.
        rng: Source of all randomness.
    """
    nodes: list[Operation] = []
    given: frozenset[str] = frozenset()
    while len(nodes) < length and (fitting := [kind for kind in space.body if kind.needs <= given]):
        nodes.append(draw_record(fitting[int(rng.integers(len(fitting)))], rng))
        given |= nodes[-1].gives
    conversions = [kind for kind in space.conversions if kind.needs <= given]
    choice = int(rng.integers(len(conversions) + 1))
    if choice < len(conversions):
        nodes.append(draw_record(conversions[choice], rng))
    return Pipeline(tuple(nodes), draw_record(Recipe, rng))


def _changed_field(
    field: Field, before: dict[str, Value], chosen: Collection[str], rng: np.random.Generator
) -> Value:
    if field.name not in before:
        return draw_value(field.distribution, rng)
    value = before[field.name]
    return change_value(field.distribution, value, rng) if field.name in chosen else value


def _scale(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Ends of the range on the scale where steps are alike; stepped ones have half a step more."""
    half = (distribution.step or 0) / 2
    low, high = distribution.low - half, distribution.high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _to_unit(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    low, high = _scale(distribution)
    return ((math.log(value) if distribution.log else value) - low) / (high - low)


def _from_unit(distribution: FloatDistribution | IntDistribution, unit: float) -> int | float:
    low, high = _scale(distribution)
    value = low + unit * (high - low)
    return _snap(distribution, math.exp(value) if distribution.log else value)


def _snap(distribution: FloatDistribution | IntDistribution, value: float) -> int | float:
    if isinstance(distribution, IntDistribution):
        steps = round((value - distribution.low) / distribution.step)
        last = (distribution.high - distribution.low) // distribution.step
        return distribution.low + distribution.step * min(max(steps, 0), last)
    if distribution.step is not None:
        value = distribution.low + distribution.step * round((value - distribution.low) / distribution.step)
    return min(max(value, distribution.low), distribution.high)


def _neighbour(
    distribution: FloatDistribution | IntDistribution, value: float, rng: np.random.Generator
) -> int | float:
    """One step up or down, for a change that rounding has undone."""
    step = distribution.step
    if step is None:
        return _from_unit(distribution, float(rng.random()))
    up = bool(rng.random() < 0.5)
    for direction in (step, -step) if up else (-step, step):
        changed = _snap(distribution, value + direction)
        if changed != value:
            return changed
    return _snap(distribution, value)


def _reflect(unit: float) -> float:
    """Fold a point on the line back into [0, 1], so that the ends of a range gather no mass."""
    folded = abs(unit) % 2
    return 2 - folded if folded > 1 else folded
