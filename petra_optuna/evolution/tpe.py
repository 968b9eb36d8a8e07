"""New parts of pipelines drawn from what good pipelines have and bad ones have not."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.evolution.drawing import change_record
from petra_optuna.evolution.genes import GeneSource
from petra_optuna.evolution.parzen import Density, Estimator, from_place, to_place
from petra_optuna.pipeline import Operation, Pipeline, Recipe
from petra_optuna.pipeline.fields import Fielded, Value, declared_fields, is_active

T = TypeVar("T", bound=Fielded)

CANDIDATES = 24
"""Draws among which the estimator chooses (Optuna's default)."""

Vectors = Mapping[type[Fielded], Array]


def vectors_of(pipeline: Pipeline) -> dict[type[Fielded], Array]:
    """The records of a pipeline by class: vectors, shape (count, fields), NaN for a field without effect."""
    rows: dict[type[Fielded], list[Array]] = {}
    for node in pipeline.nodes:
        rows.setdefault(type(node), []).append(_vector(type(node), node.active_values()))
    used = {name for node in pipeline.nodes for name in node.recipe_fields}
    if used:
        rows[Recipe] = [_vector(Recipe, pipeline.recipe.active_values(used))]
    return {cls: np.array(each) for cls, each in rows.items()}


@dataclasses.dataclass(frozen=True)
class TpeGenes(GeneSource):
    """New records and changes, chosen among several by a tree-structured Parzen estimator.

    Attributes:
        good: Vectors of the good pipelines, one mapping a pipeline.
        bad: Those of the others.
    """

    good: Sequence[Vectors] = ()
    bad: Sequence[Vectors] = ()

    def fresh(self, cls: type[T], rng: np.random.Generator) -> T:
        """A record of the class drawn from the good ones, the most promising of several."""
        if not declared_fields(cls):
            return cls()
        estimator = self._estimator(cls)
        drawn = [_active(cls, vector) for vector in estimator.good.draw(CANDIDATES, rng)]
        scores = estimator.score(np.array([_vector(cls, values) for values in drawn]))
        return cls(**drawn[int(np.argmax(scores))])

    def changed(self, record: T, rng: np.random.Generator, among: Collection[str] | None = None) -> T | None:
        """The most promising of several changed records; None where no field can change."""
        changes = [change_record(record, rng, among, self.step) for _ in range(CANDIDATES)]
        found = [each for each in changes if each is not None]
        if not found:
            return None
        vectors = np.array([_vector(type(record), each.active_values(among)) for each in found])
        return found[int(np.argmax(self._estimator(type(record)).score(vectors)))]

    def kind(self, kinds: Sequence[type[Operation]], rng: np.random.Generator) -> type[Operation]:
        """An operation, as often as good pipelines have it."""
        uses = np.array([1.0 + sum(len(each.get(kind, ())) for each in self.good) for kind in kinds])
        return kinds[int(rng.choice(len(kinds), p=uses / uses.sum()))]

    def _estimator(self, cls: type[Fielded]) -> Estimator:
        kinds = [field.distribution for field in declared_fields(cls)]
        return Estimator(
            Density.of(kinds, _stacked(self.good, cls)), Density.of(kinds, _stacked(self.bad, cls))
        )


def _vector(cls: type[Fielded], values: Mapping[str, Value]) -> Array:
    return np.array(
        [
            to_place(field.distribution, values[field.name]) if field.name in values else np.nan
            for field in declared_fields(cls)
        ]
    )


def _active(cls: type[Fielded], vector: Array) -> dict[str, Value]:
    """The fields that count at a vector, by name."""
    values: dict[str, Value] = {}
    for field, place in zip(declared_fields(cls), vector, strict=True):
        if is_active(field, values):
            values[field.name] = from_place(field.distribution, float(place))
    return values


def _stacked(observed: Sequence[Vectors], cls: type[Fielded]) -> Array:
    rows = [each[cls] for each in observed if cls in each]
    return np.vstack(rows) if rows else np.empty((0, len(declared_fields(cls))))
