"""Pipelines and sets of parameters as vectors of one length, for a model that learns from them.

A number becomes its place in its range, in [0, 1], and ``ABSENT`` where it does not count; a category
becomes one column for each choice, all 0 where it does not count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from petra_optuna.aliases import Array
from petra_optuna.evolution.parzen import to_place
from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace
from petra_optuna.pipeline.fields import Fielded, Value, declared_fields

ABSENT = -1.0
Columns = Callable[[Any], Sequence[float]]
_MISSING = object()


def pipeline_features(pipeline: Pipeline, space: SearchSpace) -> Array:
    """Shape (d,), the same for all pipelines of a space.

    Of each operation how often it stands in the body, where first and where last, and the fields of these
    two nodes; then the conversion with its fields, and the recipe as far as a node reads it.
    """
    body = pipeline.body
    found: list[float] = [len(body)]
    for kind in space.body:
        places = [place for place, node in enumerate(body) if type(node) is kind]
        first, last = (places[0], places[-1]) if places else (None, None)
        found.append(len(places))
        for place in (first, last):
            found.append(ABSENT if place is None else place)
            found += _absent(_hashable(kind)) if place is None else _record(body[place])
    for kind in space.conversions:
        node = pipeline.conversion if type(pipeline.conversion) is kind else None
        found.append(float(node is not None))
        found += _absent(_hashable(kind)) if node is None else _record(node)
    used = {name for node in pipeline.nodes for name in node.recipe_fields}
    return np.array(found + _columns_of(Recipe, pipeline.recipe.active_values(used)))


def params_features(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> Array:
    """Shape (d,): the parameters by name, in the order of ``distributions``."""
    found: list[float] = []
    for name, distribution in distributions.items():
        found += _columns(distribution)(params.get(name, _MISSING))
    return np.array(found)


@functools.lru_cache(1024)
def _record(node: Operation) -> Sequence[float]:
    """Of a node; a child shares all but one or two with its parent."""
    return _columns_of(type(node), node.active_values())


@functools.cache
def _absent(cls: type[Fielded]) -> Sequence[float]:
    """What most operations are in most pipelines."""
    return _columns_of(cls, {})


def _columns_of(cls: type[Fielded], values: Mapping[str, Value]) -> list[float]:
    return [
        place for name, columns in _reader(_hashable(cls)) for place in columns(values.get(name, _MISSING))
    ]


def _hashable(cls: type[Fielded]) -> Any:
    """The class itself: one whose instances define __hash__ is not Hashable to type checkers."""
    return cls


@functools.cache
def _reader(cls: type[Fielded]) -> tuple[tuple[str, Columns], ...]:
    return tuple((field.name, _columns(field.distribution)) for field in declared_fields(cls))


def _columns(distribution: BaseDistribution) -> Columns:
    """Gives the columns of a value, or of none."""
    if not isinstance(distribution, CategoricalDistribution):
        return lambda value: (ABSENT if value is _MISSING else to_place(distribution, value),)
    *table, nothing = np.eye(len(distribution.choices) + 1)[:, :-1].tolist()
    return lambda value: nothing if value is _MISSING else table[int(distribution.to_internal_repr(value))]
