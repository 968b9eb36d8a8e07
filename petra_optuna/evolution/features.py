"""Pipelines and sets of parameters as vectors of one length, for a model that learns from them.

A number becomes its coordinate in its range, in [0, 1], and ``ABSENT`` where it does not count; a category
becomes one column for each choice, all 0 where it does not count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from petra_optuna.aliases import Array
from petra_optuna.evolution.parzen import to_coordinate
from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace
from petra_optuna.pipeline.fields import Fielded, Value, declared_fields

ABSENT = -1.0
"""Column of a number that does not count."""
ColumnsOf = Callable[[Any], Sequence[float]]
_MISSING = object()


def pipeline_features(pipeline: Pipeline, space: SearchSpace) -> Array:
    """Features of a pipeline, shape (d,), with the same d for all pipelines of a space.

    They are, for each operation, how often it stands in the body, where first and where last, and the fields
    of these two nodes; then the conversion with its fields, and the recipe as far as a node reads it.
    """
    body = pipeline.body
    columns: list[float] = [len(body)]
    for operation in space.body:
        indices = [index for index, node in enumerate(body) if type(node) is operation]
        first, last = (indices[0], indices[-1]) if indices else (None, None)
        columns.append(len(indices))
        for index in (first, last):
            columns.append(ABSENT if index is None else index)
            columns += _absent(_hashable(operation)) if index is None else _node_columns(body[index])
    for operation in space.conversions:
        node = pipeline.conversion if type(pipeline.conversion) is operation else None
        columns.append(float(node is not None))
        columns += _absent(_hashable(operation)) if node is None else _node_columns(node)
    used = {name for node in pipeline.nodes for name in node.recipe_fields}
    return np.array(columns + _record_columns(Recipe, pipeline.recipe.active_values(used)))


def params_features(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> Array:
    """Features of parameters by name, shape (d,), in the order of ``distributions``."""
    columns: list[float] = []
    for name, distribution in distributions.items():
        columns += _columns_of(distribution)(params.get(name, _MISSING))
    return np.array(columns)


@functools.lru_cache(1024)
def _node_columns(node: Operation) -> Sequence[float]:
    """Columns of a node, kept: a child shares all but one or two nodes with its parent."""
    return _record_columns(type(node), node.active_values())


@functools.cache
def _absent(cls: type[Fielded]) -> Sequence[float]:
    """Columns of an operation that the pipeline lacks, kept: most pipelines lack most operations."""
    return _record_columns(cls, {})


def _record_columns(cls: type[Fielded], values: Mapping[str, Value]) -> list[float]:
    return [
        column
        for name, columns_of in _readers(_hashable(cls))
        for column in columns_of(values.get(name, _MISSING))
    ]


def _hashable(cls: type[Fielded]) -> Any:
    """The class itself: one whose instances define __hash__ is not Hashable to type checkers."""
    return cls


@functools.cache
def _readers(cls: type[Fielded]) -> tuple[tuple[str, ColumnsOf], ...]:
    return tuple((field.name, _columns_of(field.distribution)) for field in declared_fields(cls))


def _columns_of(distribution: BaseDistribution) -> ColumnsOf:
    """A function that gives the columns of a value, or of ``_MISSING``."""
    if not isinstance(distribution, CategoricalDistribution):
        return lambda value: (ABSENT if value is _MISSING else to_coordinate(distribution, value),)
    *table, absent = np.eye(len(distribution.choices) + 1)[:, :-1].tolist()
    return lambda value: absent if value is _MISSING else table[int(distribution.to_internal_repr(value))]
