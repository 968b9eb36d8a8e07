"""Hyperparameters declared once: type, Optuna distribution, default, and when they count.

A field is a dataclass field annotated with a distribution::

    @dataclass(frozen=True)
    class LowRank(Operation):
        rule: Annotated[str, CategoricalDistribution(("energy", "share"))] = "energy"
        threshold: Annotated[float, FloatDistribution(0.5, 0.99), When("rule", ("energy",))] = 0.9

Operations and the recipe share this mechanism, so suggesting, encoding, hashing and validating
have one implementation.

A field that gets another name declares the names that it had, ``Formerly("ratio")``: what was stored under
them stays readable, and its identity, the hash of a pipeline and the digest of a space, stays the same.
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
V = TypeVar("V")


@dataclasses.dataclass(frozen=True)
class When:
    """The field counts only where the sibling ``field`` has one of ``values``."""

    field: str
    values: tuple[Value, ...]


@dataclasses.dataclass(frozen=True, init=False)
class Formerly:
    """The names that the field had in earlier releases, the oldest first."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclasses.dataclass(frozen=True)
class Field:
    """One declared hyperparameter.

    Attributes:
        name: Name of the dataclass field.
        distribution: Range of the values.
        default: Value of a record that names none.
        when: Condition under which the field counts; None where it always does.
        former: Names that it had in earlier releases, the oldest first.
    """

    name: str
    distribution: BaseDistribution
    default: Value
    when: When | None = None
    former: tuple[str, ...] = ()

    @property
    def first_name(self) -> str:
        """The name under which it was first stored, which hashes and digests go by."""
        return self.former[0] if self.former else self.name

    @functools.cached_property
    def is_continuous(self) -> bool:
        """Whether values are floats."""
        return isinstance(self.distribution, FloatDistribution)

    @functools.cached_property
    def contains(self) -> Callable[[Any], bool]:
        """Whether a value belongs to the distribution."""
        # Decided once: records are checked by the ten thousand while a sampler looks for children.
        if isinstance(self.distribution, CategoricalDistribution):
            return _is_choice(self.distribution)
        if isinstance(self.distribution, IntDistribution):
            return _is_integer_within(self.distribution)
        assert isinstance(self.distribution, FloatDistribution)
        return _is_float_within(self.distribution)


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
        PipelineError: When a dataclass field has no distribution or no default, a ``When`` names a field
            that is not declared before it, or a former name is that of another field.
    """
    hashable: Any = cls  # a class whose instances define __hash__ is not Hashable to type checkers
    return _declared_fields(hashable)


def is_active(field: Field, active: Mapping[str, Value]) -> bool:
    """Whether the field counts, given the fields declared before it that count themselves."""
    when = field.when
    return when is None or (when.field in active and active[when.field] in when.values)


def present_names(cls: type[Fielded], values: Mapping[str, V]) -> dict[str, V]:
    """Stored values by the names that the fields have now; a present name comes before a former one."""
    renamed = former_names(cls)
    moved = {renamed[name]: value for name, value in values.items() if name in renamed}
    return {**moved, **{name: value for name, value in values.items() if name not in renamed}}


def first_names(cls: type[Fielded], values: Mapping[str, V]) -> dict[str, V]:
    """The values of fields by the names under which these were first stored."""
    hashable: Any = cls
    first = _first_names(hashable)
    return {first[name]: value for name, value in values.items()}


def former_names(cls: type[Fielded]) -> dict[str, str]:
    """Former name -> present name, for every field of the class that was renamed."""
    return {name: field.name for field in declared_fields(cls) for name in field.former}


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


def _is_choice(distribution: CategoricalDistribution) -> Callable[[Any], bool]:
    choices = frozenset((type(choice), choice) for choice in distribution.choices)
    return lambda value: (type(value), value) in choices


def _is_integer_within(distribution: IntDistribution) -> Callable[[Any], bool]:
    low, high, step = distribution.low, distribution.high, distribution.step
    return lambda value: type(value) is int and low <= value <= high and (value - low) % step == 0


def _is_float_within(distribution: FloatDistribution) -> Callable[[Any], bool]:
    low, high, step = distribution.low, distribution.high, distribution.step

    def contains(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            return False
        steps = 0.0 if step is None else (value - low) / step
        return abs(steps - round(steps)) < 1e-8

    return contains


@functools.cache
def _first_names(cls: type[Fielded]) -> dict[str, str]:
    return {field.name: field.first_name for field in declared_fields(cls)}


@functools.cache
def _declared_fields(cls: type[Fielded]) -> tuple[Field, ...]:
    hints = get_type_hints(cls, include_extras=True)
    fields: list[Field] = []
    for item in dataclasses.fields(cls):
        extras = getattr(hints[item.name], "__metadata__", ())
        distributions = [extra for extra in extras if isinstance(extra, BaseDistribution)]
        if len(distributions) != 1 or item.default is dataclasses.MISSING:
            raise PipelineError(
                f"{cls.__name__}.{item.name} must be Annotated with exactly one Optuna distribution "
                "and have a default"
            )
        when = next((extra for extra in extras if isinstance(extra, When)), None)
        if when is not None and when.field not in {field.name for field in fields}:
            raise PipelineError(
                f"{cls.__name__}.{item.name} depends on {when.field!r}, which is not declared before it"
            )
        former = next((extra.names for extra in extras if isinstance(extra, Formerly)), ())
        fields.append(Field(item.name, distributions[0], item.default, when, former))
    names = [name for field in fields for name in (field.name, *field.former)]
    if len(set(names)) < len(names):
        raise PipelineError(
            f"the fields of {cls.__name__} share a present or former name: {', '.join(names)}"
        )
    return tuple(fields)
