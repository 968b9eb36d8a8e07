"""Where the new parts of a pipeline come from.

By chance; near what is known to be a beginning for this model (``PriorGenes``); or from what good
pipelines have (``tpe``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from petra_optuna.evolution.drawing import (
    STEP_SHARE,
    change_record,
    draw_record,
    from_unit,
    reflect,
    to_unit,
)
from petra_optuna.pipeline import FieldPrior, Operation, Pipeline, Recipe, SearchSpace, declared_fields
from petra_optuna.pipeline.fields import Fielded, Value

T = TypeVar("T", bound=Fielded)

STARTED_SHARE = 0.7
"""Share of fresh values that are drawn near their start; the others are uniform, so none is out of reach."""
SPREAD = 0.15
"""Standard deviation of these around the start, as a share of the field's range."""


@dataclasses.dataclass(frozen=True)
class GeneSource:
    """Uniform draws and small steps.

    Attributes:
        step: Standard deviation of a small step, as a share of a value's range.
    """

    step: float = STEP_SHARE

    def fresh(self, cls: type[T], rng: np.random.Generator) -> T:
        """A new record of a class."""
        return draw_record(cls, rng)

    def changed(self, record: T, rng: np.random.Generator, among: Collection[str] | None = None) -> T | None:
        """The record with at least one field (of ``among``) changed; None where no field can change."""
        return change_record(record, rng, among, self.step)

    def kind(self, kinds: Sequence[type[Operation]], rng: np.random.Generator) -> type[Operation]:
        """Which operation a new node of the body has."""
        return kinds[int(rng.integers(len(kinds)))]


RANDOM = GeneSource()
"""The paper's: everything new is drawn uniformly."""


@dataclasses.dataclass(frozen=True)
class PriorGenes(GeneSource):
    """Uniform draws, of which most that have a start are moved near it; small steps.

    Attributes:
        starts: Of fields of operations; see ``FieldPrior``.
    """

    starts: tuple[FieldPrior, ...] = ()

    def fresh(self, cls: type[T], rng: np.random.Generator) -> T:
        """A record drawn uniformly, then each field with a start drawn again near it, or not."""
        record = super().fresh(cls, rng)
        values = record.active_values()
        moved = {
            start.field: near(cls, start, rng)
            for start in self.starts
            if _holds(start, cls, values) and rng.random() < STARTED_SHARE
        }
        return cls(**{**values, **moved}) if moved else record


def near(cls: type[Fielded], start: FieldPrior, rng: np.random.Generator) -> float:
    """A value of the start's field at about ``SPREAD`` from it, folded back into the range."""
    kind = next(field.distribution for field in declared_fields(cls) if field.name == start.field)
    assert isinstance(kind, FloatDistribution | IntDistribution)
    moved = to_unit(kind, start.value) + SPREAD * float(rng.standard_normal())
    return from_unit(kind, float(reflect(moved)))


def _holds(start: FieldPrior, cls: type[Fielded], values: Mapping[str, Value]) -> bool:
    if not issubclass(cls, Operation) or cls.name != start.operation or start.field not in values:
        return False
    return all(values.get(name) == value for name, value in start.when.items())


def random_pipeline(
    space: SearchSpace, length: int, rng: np.random.Generator, genes: GeneSource = RANDOM
) -> Pipeline:
    """A legal pipeline with new nodes, conversion and recipe.

    Args:
        space: Operations to choose from.
        length: Nodes in the body; more where the space wants more.
        rng: Source of all randomness.
        genes: What nodes and recipe are drawn from.
    """
    nodes = [
        genes.fresh(genes.kind(space.operations_at(place), rng), rng)
        for place in range(max(length, space.min_length))
    ]
    choice = int(rng.integers(len(space.conversions) + 1))
    if choice < len(space.conversions):
        nodes.append(genes.fresh(space.conversions[choice], rng))
    return Pipeline(tuple(nodes), genes.fresh(Recipe, rng))
