"""Draw and change values and records by their declared distributions."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from petra_optuna.aliases import Array
from petra_optuna.pipeline.fields import Field, Fielded, Value, declared_fields, is_active

T = TypeVar("T", bound=Fielded)

PERTURBED_SHARE = 0.7
"""Share of numeric changes that are small steps; the others are fresh draws, so no value is out of reach."""

STEP_SHARE = 0.15
"""Standard deviation of a small step, as a share of the range (of its logarithm on a log scale)."""


def draw_value(distribution: BaseDistribution, rng: np.random.Generator) -> Value:
    """Draw a value from a distribution: uniform, on its log scale where it has one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return from_unit(distribution, float(rng.random()))


def change_value(
    distribution: BaseDistribution, value: Value, rng: np.random.Generator, step: float = STEP_SHARE
) -> Value:
    """Change a value of a distribution: to another category, by a small step, or by a fresh draw.

    The value itself comes back only where the distribution has no other, or where a continuous draw
    meets it by chance.

    Args:
        distribution: Declared distribution of the value.
        value: Present value.
        rng: Source of all randomness.
        step: Standard deviation of a small step, as a share of the range.
    """
    if distribution.single():
        return value
    if isinstance(distribution, CategoricalDistribution):
        others = [choice for choice in distribution.choices if choice != value]
        return others[int(rng.integers(len(others)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    assert isinstance(value, int | float)
    if rng.random() >= PERTURBED_SHARE:
        changed = from_unit(distribution, float(rng.random()))
    else:
        moved = to_unit(distribution, value) + step * float(rng.standard_normal())
        changed = from_unit(distribution, float(reflect(moved)))
    return changed if changed != value else _neighbour(distribution, value, rng)


def draw_record(cls: type[T], rng: np.random.Generator) -> T:
    """Draw a record: its fields that count are drawn, the others keep their defaults."""
    active: dict[str, Value] = {}
    for field in declared_fields(cls):
        if is_active(field, active):
            active[field.name] = draw_value(field.distribution, rng)
    return cls(**active)


def change_record(
    record: T,
    rng: np.random.Generator,
    among: Collection[str] | None = None,
    step: float = STEP_SHARE,
) -> T | None:
    """Change at least one field of a record; None where no field can change.

    Fields that start to count because of the change are drawn afresh.

    Args:
        record: Record to change.
        rng: Source of all randomness.
        among: Names of the fields that may change; all when None.
        step: Standard deviation of a small step, as a share of the range.
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
            after[field.name] = _change_field(field, before, chosen, rng, step)
    return type(record)(**after)


def _change_field(
    field: Field, before: dict[str, Value], chosen: Collection[str], rng: np.random.Generator, step: float
) -> Value:
    if field.name not in before:
        return draw_value(field.distribution, rng)
    value = before[field.name]
    return change_value(field.distribution, value, rng, step) if field.name in chosen else value


def _scale(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Ends of the range on its linear or log scale, half a step wider where it has steps."""
    half = (distribution.step or 0) / 2
    low, high = distribution.low - half, distribution.high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def to_unit(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    """Position of a value in its range, in [0, 1], on the distribution's linear or log scale."""
    low, high = _scale(distribution)
    value = math.log(value) if distribution.log else value
    return (value / 2 - low / 2) / (high / 2 - low / 2)  # halved: a range may be wider than any float


def from_unit(distribution: FloatDistribution | IntDistribution, unit: float) -> int | float:
    """The value of the distribution nearest to a point of [0, 1]; inverse of ``to_unit``."""
    low, high = _scale(distribution)
    value = 2 * (low / 2 + unit * (high / 2 - low / 2))
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
        return from_unit(distribution, float(rng.random()))
    up = bool(rng.random() < 0.5)
    for direction in (step, -step) if up else (-step, step):
        changed = _snap(distribution, value + direction)
        if changed != value:
            return changed
    return _snap(distribution, value)


def reflect(unit: npt.ArrayLike) -> Array:
    """Fold points on the line back into [0, 1], so that the ends of a range gather no mass."""
    folded = np.abs(np.asarray(unit, dtype=float)) % 2
    return np.asarray(np.where(folded > 1, 2 - folded, folded))
