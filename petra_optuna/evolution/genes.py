"""Where the new parts of a pipeline come from: by chance, or (``tpe``) from what good pipelines have."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np

from petra_optuna.evolution.drawing import STEP_SHARE, change_record, draw_record
from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace
from petra_optuna.pipeline.fields import Fielded

T = TypeVar("T", bound=Fielded)


@dataclasses.dataclass(frozen=True)
class Genes:
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


RANDOM = Genes()
"""The paper's: everything new is drawn uniformly."""


def random_pipeline(
    space: SearchSpace, length: int, rng: np.random.Generator, genes: Genes = RANDOM
) -> Pipeline:
    """A legal pipeline with new nodes, conversion and recipe.

    Args:
        space: Which operations there are and what they need.
        length: Nodes in the body; more where the space wants more, fewer where nothing that is left fits the
            needs declared.
        rng: Source of all randomness.
        genes: What nodes and recipe are drawn from.
    """
    nodes: list[Operation] = []
    given: frozenset[str] = frozenset()
    length = max(length, space.min_length)
    while len(nodes) < length and (
        fitting := [kind for kind in space.kinds_at(len(nodes)) if kind.needs <= given]
    ):
        nodes.append(genes.fresh(genes.kind(fitting, rng), rng))
        given |= nodes[-1].gives
    conversions = [kind for kind in space.conversions if kind.needs <= given]
    choice = int(rng.integers(len(conversions) + 1))
    if choice < len(conversions):
        nodes.append(genes.fresh(conversions[choice], rng))
    return Pipeline(tuple(nodes), genes.fresh(Recipe, rng))
