"""New parts of pipelines drawn from what good pipelines have and bad ones have not."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.evolution.gene_sources import GeneSource
from petra_optuna.evolution.parzen import Density, Estimator, from_coordinate, to_coordinate
from petra_optuna.evolution.values import change_record
from petra_optuna.pipeline import Operation, Pipeline, Recipe
from petra_optuna.pipeline.fields import Fielded, Value, declared_fields, is_active

T = TypeVar("T", bound=Fielded)

CANDIDATES = 24
"""Draws among which the estimator chooses (Optuna's default)."""

Vectors = Mapping[type[Fielded], Array]
"""Records of one pipeline by their class: vectors, shape (count, fields)."""


def vectors_of(pipeline: Pipeline) -> dict[type[Fielded], Array]:
    """Records of a pipeline by class: vectors, shape (count, fields), NaN for a field without effect."""
    rows: dict[type[Fielded], list[Array]] = {}
    for node in pipeline.nodes:
        rows.setdefault(type(node), []).append(_vector(type(node), node.active_values()))
    used = {name for node in pipeline.nodes for name in node.recipe_fields}
    if used:
        rows[Recipe] = [_vector(Recipe, pipeline.recipe.active_values(used))]
    return {cls: np.array(vectors) for cls, vectors in rows.items()}


@dataclasses.dataclass(frozen=True)
class TpeGenes(GeneSource):
    """Draws new records and changes, each chosen among several by a tree-structured Parzen estimator.

    Attributes:
        good: Vectors of the good pipelines, one mapping per pipeline.
        bad: Vectors of the other pipelines, one mapping per pipeline.
    """

    good: Sequence[Vectors] = ()
    bad: Sequence[Vectors] = ()

    def draw(self, cls: type[T], rng: np.random.Generator) -> T:
        """Draw several records of a class from the density of the good ones; the most promising of them."""
        if not declared_fields(cls):
            return cls()
        estimator = self._estimator(cls)
        candidates = [_active_values(cls, vector) for vector in estimator.good.draw(CANDIDATES, rng)]
        scores = estimator.score(np.array([_vector(cls, values) for values in candidates]))
        return cls(**candidates[int(np.argmax(scores))])

    def change(self, record: T, rng: np.random.Generator, among: Collection[str] | None = None) -> T | None:
        """The most promising of several changed records; None where no field can change."""
        changes = [change_record(record, rng, among, self.step) for _ in range(CANDIDATES)]
        candidates = [change for change in changes if change is not None]
        if not candidates:
            return None
        vectors = np.array(
            [_vector(type(record), candidate.active_values(among)) for candidate in candidates]
        )
        return candidates[int(np.argmax(self._estimator(type(record)).score(vectors)))]

    def choose_operation(
        self, operations: Sequence[type[Operation]], rng: np.random.Generator
    ) -> type[Operation]:
        """Choose an operation, as often as good pipelines have it."""
        counts = np.array(
            [1.0 + sum(len(vectors.get(operation, ())) for vectors in self.good) for operation in operations]
        )
        return operations[int(rng.choice(len(operations), p=counts / counts.sum()))]

    def _estimator(self, cls: type[Fielded]) -> Estimator:
        distributions = [field.distribution for field in declared_fields(cls)]
        return Estimator(
            Density.of(distributions, _stack(self.good, cls)),
            Density.of(distributions, _stack(self.bad, cls)),
        )


def _vector(cls: type[Fielded], values: Mapping[str, Value]) -> Array:
    return np.array(
        [
            to_coordinate(field.distribution, values[field.name]) if field.name in values else np.nan
            for field in declared_fields(cls)
        ]
    )


def _active_values(cls: type[Fielded], vector: Array) -> dict[str, Value]:
    """Values of the fields that count at a vector, by name."""
    values: dict[str, Value] = {}
    for field, coordinate in zip(declared_fields(cls), vector, strict=True):
        if is_active(field, values):
            values[field.name] = from_coordinate(field.distribution, float(coordinate))
    return values


def _stack(pipelines: Sequence[Vectors], cls: type[Fielded]) -> Array:
    """Vectors of one class in all pipelines, shape (n, fields)."""
    rows = [vectors[cls] for vectors in pipelines if cls in vectors]
    return np.vstack(rows) if rows else np.empty((0, len(declared_fields(cls))))
