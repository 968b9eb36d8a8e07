"""Sources of the new parts of pipelines.

New values are drawn uniformly (``GeneSource``), near the values that sensitivity curves suggest for this
model (``PriorGenes``), or from the densities of good and bad pipelines (``tpe.TpeGenes``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from petra_optuna.evolution.values import (
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

PRIOR_SHARE = 0.7
"""Share of fresh values that are drawn near their prior; the others are uniform, so none is out of reach."""
PRIOR_SPREAD = 0.15
"""Standard deviation of these around the prior's value, as a share of the field's range."""


@dataclasses.dataclass(frozen=True)
class GeneSource:
    """Draws the new nodes, recipes and values of pipelines: uniform draws and small steps.

    Attributes:
        step: Standard deviation of a small step, as a share of a value's range.
    """

    step: float = STEP_SHARE

    def draw(self, cls: type[T], rng: np.random.Generator) -> T:
        """Draw a new record of a class."""
        return draw_record(cls, rng)

    def change(self, record: T, rng: np.random.Generator, among: Collection[str] | None = None) -> T | None:
        """Change at least one field of a record, out of ``among``; None where no field can change."""
        return change_record(record, rng, among, self.step)

    def choose_operation(
        self, operations: Sequence[type[Operation]], rng: np.random.Generator
    ) -> type[Operation]:
        """Choose the operation of a new node of the body."""
        return operations[int(rng.integers(len(operations)))]


RANDOM = GeneSource()
"""The paper's source: everything new is drawn uniformly."""


@dataclasses.dataclass(frozen=True)
class PriorGenes(GeneSource):
    """Uniform draws, of which most that have a prior are moved near its value; small steps.

    Attributes:
        priors: Priors of fields of operations.
    """

    priors: tuple[FieldPrior, ...] = ()

    def draw(self, cls: type[T], rng: np.random.Generator) -> T:
        """Draw a record uniformly, then most of its fields that have a prior again near the prior's value."""
        record = super().draw(cls, rng)
        values = record.active_values()
        moved = {
            prior.field: draw_near(cls, prior, rng)
            for prior in self.priors
            if _holds(prior, cls, values) and rng.random() < PRIOR_SHARE
        }
        return cls(**{**values, **moved}) if moved else record


def draw_near(cls: type[Fielded], prior: FieldPrior, rng: np.random.Generator) -> float:
    """Draw a value about ``PRIOR_SPREAD`` from the prior's value, folded back into the field's range."""
    distribution = next(field.distribution for field in declared_fields(cls) if field.name == prior.field)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    moved = to_unit(distribution, prior.value) + PRIOR_SPREAD * float(rng.standard_normal())
    return from_unit(distribution, float(reflect(moved)))


def _holds(prior: FieldPrior, cls: type[Fielded], values: Mapping[str, Value]) -> bool:
    if not issubclass(cls, Operation) or cls.name != prior.operation or prior.field not in values:
        return False
    return all(values.get(name) == value for name, value in prior.when.items())


def random_pipeline(
    space: SearchSpace, length: int, rng: np.random.Generator, genes: GeneSource = RANDOM
) -> Pipeline:
    """Draw a legal pipeline with new nodes, conversion and recipe.

    Args:
        space: Search space with the operations to choose from.
        length: Number of nodes in the body; more where the space wants more.
        rng: Source of all randomness.
        genes: Source of nodes and recipe.
    """
    nodes = [
        genes.draw(genes.choose_operation(space.operations_at(index), rng), rng)
        for index in range(max(length, space.min_length))
    ]
    choice = int(rng.integers(len(space.conversions) + 1))
    if choice < len(space.conversions):
        nodes.append(genes.draw(space.conversions[choice], rng))
    return Pipeline(tuple(nodes), genes.draw(Recipe, rng))
