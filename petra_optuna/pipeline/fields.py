"""Hyperparameters declared once: type, Optuna distribution, default, and when they count.

A field is a dataclass field annotated with a distribution::

    @dataclass(frozen=True)
    class LowRank(Operation):
        rule: Annotated[str, CategoricalDistribution(("energy", "share"))] = "energy"
        threshold: Annotated[float, FloatDistribution(0.5, 0.99), When("rule", ("energy",))] = 0.9

Operations and the recipe share this mechanism, so suggesting, encoding, hashing and validating
have one implementation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, get_type_hints

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from petra_optuna.errors import PipelineError

Value = bool | int | float | str | None
T = TypeVar("T", bound="Fielded")


@dataclasses.dataclass(frozen=True)
class When:
    """The field counts only where the sibling ``field`` has one of ``values``."""

    field: str
    values: tuple[Value, ...]


@dataclasses.dataclass(frozen=True)
class Field:
    """One declared hyperparameter."""

    name: str
    distribution: BaseDistribution
    default: Value
    when: When | None = None

    @functools.cached_property
    def is_continuous(self) -> bool:
        """Whether values are floats."""
        return isinstance(self.distribution, FloatDistribution)

    @functools.cached_property
    def contains(self) -> Callable[[Any], bool]:
        """Whether a value belongs to the distribution."""
        # Decided once: records are checked by the ten thousand while a sampler looks for children.
        kinds = (_categories, _integers, _floats)
        return next(found for kind in kinds if (found := kind(self.distribution)) is not None)


@dataclasses.dataclass(frozen=True)
class Fielded:
    """Base of frozen dataclasses whose fields are searchable hyperparameters.

    Raises:
        PipelineError: On construction, when a value lies outside its declared distribution.
    """

    def __post_init__(self) -> None:
        """Check every value against its distribution."""
        for field in declared_fields(type(self)):
            check_value(type(self).__name__, field, getattr(self, field.name))

    def values(self) -> dict[str, Value]:
        """All declared fields by name."""
        return {field.name: getattr(self, field.name) for field in declared_fields(type(self))}

    def active_values(self, only: Collection[str] | None = None) -> dict[str, Value]:
        """The declared fields that count, given the values of the others; of ``only`` when given."""
        active: dict[str, Value] = {}
        for field in declared_fields(type(self)):
            if (only is None or field.name in only) and is_active(field, active):
                value = getattr(self, field.name)
                # A whole number in a continuous field would otherwise hash unlike the equal float.
                active[field.name] = float(value) if field.is_continuous else value
        return active

    def canonical(self: T) -> T:
        """The same record with every field that does not count set to its default."""
        return type(self)(**self.active_values())


def declared_fields(cls: type[Fielded]) -> tuple[Field, ...]:
    """The declared hyperparameters of a class, in order of declaration.

    Raises:
        PipelineError: When a dataclass field has no distribution or no default, or a ``When``
            names a field that is not declared before it.
    """
    hashable: Any = cls  # a class whose instances define __hash__ is not Hashable to type checkers
    return _declared_fields(hashable)


def is_active(field: Field, active: Mapping[str, Value]) -> bool:
    """Whether the field counts, given the fields declared before it that count themselves."""
    when = field.when
    return when is None or (when.field in active and active[when.field] in when.values)


def check_value(owner: str, field: Field, value: object) -> None:
    """Raise unless ``value`` belongs to the field's distribution.

    Raises:
        PipelineError: Naming the class, the field, the rule and what was given.
    """
    if not field.contains(value):
        raise PipelineError(f"{owner}.{field.name} must be in {describe(field.distribution)}, got {value!r}")


def describe(distribution: BaseDistribution) -> str:
    """A short human form: ``{a, b}`` or ``[low, high]``."""
    if isinstance(distribution, CategoricalDistribution):
        return "{" + ", ".join(map(str, distribution.choices)) + "}"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = f" step {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"[{distribution.low}, {distribution.high}]{step}"


def _categories(distribution: BaseDistribution) -> Callable[[Any], bool] | None:
    if not isinstance(distribution, CategoricalDistribution):
        return None
    choices = frozenset((type(choice), choice) for choice in distribution.choices)
    return lambda value: (type(value), value) in choices


def _integers(distribution: BaseDistribution) -> Callable[[Any], bool] | None:
    if not isinstance(distribution, IntDistribution):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    return lambda value: type(value) is int and low <= value <= high and (value - low) % step == 0


def _floats(distribution: BaseDistribution) -> Callable[[Any], bool] | None:
    if not isinstance(distribution, FloatDistribution):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step

    def contains(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            return False
        steps = 0.0 if step is None else (value - low) / step
        return abs(steps - round(steps)) < 1e-8

    return contains


@functools.cache
def _declared_fields(cls: type[Fielded]) -> tuple[Field, ...]:
    hints = get_type_hints(cls, include_extras=True)
    found: list[Field] = []
    for item in dataclasses.fields(cls):
        extras = getattr(hints[item.name], "__metadata__", ())
        distributions = [extra for extra in extras if isinstance(extra, BaseDistribution)]
        if len(distributions) != 1 or item.default is dataclasses.MISSING:
            raise PipelineError(
                f"{cls.__name__}.{item.name} must be Annotated with exactly one Optuna distribution "
                "and have a default"
            )
        when = next((extra for extra in extras if isinstance(extra, When)), None)
        if when is not None and when.field not in {field.name for field in found}:
            raise PipelineError(
                f"{cls.__name__}.{item.name} depends on {when.field!r}, which is not declared before it"
            )
        found.append(Field(item.name, distributions[0], item.default, when))
    return tuple(found)
