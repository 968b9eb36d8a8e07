"""Mutations of a pipeline: one small class each, local, structural or global. Never crossover.

A mutation is a pure function of its arguments. A new one states its name and one ``propose``; the rules
that hold for all of them (a child differs from its parent, a child is legal) are in ``Mutation`` alone.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
from typing import ClassVar, Self

import numpy as np

from petra_optuna.evolution.gene_sources import RANDOM, GeneSource
from petra_optuna.pipeline import Operation, Pipeline, SearchSpace


class Mutation(abc.ABC):
    """One way to change a pipeline.

    Class attributes:
        name: Key of the mutation in the rates and in the trials' records.
        steps: Whether it moves values by small steps, so that the size of a step matters.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> child = MUTATIONS[0](Pipeline((Prune(removed=0.3),)), default_space(), rng)
        >>> child is None or isinstance(child, Pipeline)
        True
    """

    name: ClassVar[str]
    steps: ClassVar[bool] = False

    def __init__(self, genes: GeneSource = RANDOM) -> None:
        self.genes = genes

    def using(self, genes: GeneSource) -> Self:
        """The same mutation with another source of new values."""
        other = copy.copy(self)
        other.genes = genes
        return other

    def __call__(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """A changed pipeline, or None when this change is not possible here.

        None also stands for a child that does the same as its parent or breaks a rule of the space.
        """
        child = self.propose(pipeline, space, rng)
        if child is None or child.hash == pipeline.hash or space.violations(child):
            return None
        return child

    @abc.abstractmethod
    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """A candidate, legal or not; None when there is nothing to change."""


class ChangeNode(Mutation):
    """Local: other hyperparameters for one node."""

    name = "change_node"
    steps = True

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Change fields of one node that has any."""
        nodes = list(pipeline.nodes)
        indices = [index for index, node in enumerate(nodes) if node.values()]
        if not indices:
            return None
        index = indices[int(rng.integers(len(indices)))]
        changed = self.genes.change(nodes[index], rng)
        if changed is None:
            return None
        nodes[index] = changed
        return dataclasses.replace(pipeline, nodes=tuple(nodes))


class Insert(Mutation):
    """Structural: one more node."""

    name = "insert"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Put a fresh node anywhere in the body."""
        if len(pipeline.body) >= space.max_length:
            return None
        body = list(pipeline.body)
        index = int(rng.integers(len(body) + 1))
        body.insert(index, _draw_node(space.operations_at(index), rng, self.genes))
        return _with_body(pipeline, body)


class Drop(Mutation):
    """Structural: one node less."""

    name = "drop"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Take a node out of the body."""
        body = list(pipeline.body)
        if not body:
            return None
        del body[int(rng.integers(len(body)))]
        return _with_body(pipeline, body)


class Replace(Mutation):
    """Structural: another operation instead of a node's."""

    name = "replace"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Replace a node of the body by a fresh one of another operation."""
        body = list(pipeline.body)
        if not body:
            return None
        index = int(rng.integers(len(body)))
        others = tuple(other for other in space.operations_at(index) if other is not type(body[index]))
        if not others:
            return None
        body[index] = _draw_node(others, rng, self.genes)
        return _with_body(pipeline, body)


class Swap(Mutation):
    """Structural: two nodes of the body change places."""

    name = "swap"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Exchange two nodes."""
        body = list(pipeline.body)
        if len(body) < 2:
            return None
        first, second = (int(index) for index in rng.choice(len(body), size=2, replace=False))
        body[first], body[second] = body[second], body[first]
        return _with_body(pipeline, body)


class ChangeConversion(Mutation):
    """Structural: another conversion of the file, or none."""

    name = "change_conversion"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Choose among the other conversions and, where there is one now, none."""
        present = pipeline.conversion
        others: list[type[Operation] | None] = [
            other for other in space.conversions if other is not type(present)
        ]
        if present is not None:
            others.append(None)
        if not others:
            return None
        operation = others[int(rng.integers(len(others)))]
        conversion = () if operation is None else (self.genes.draw(operation, rng),)
        return dataclasses.replace(pipeline, nodes=(*pipeline.body, *conversion))


class ChangeRecipe(Mutation):
    """Global: another recipe."""

    name = "change_recipe"
    steps = True

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Change model-level parameters that a node reads."""
        used = {name for node in pipeline.nodes for name in node.recipe_fields}
        recipe = self.genes.change(pipeline.recipe, rng, among=used)
        return None if recipe is None else dataclasses.replace(pipeline, recipe=recipe)


MUTATIONS: tuple[Mutation, ...] = (
    ChangeNode(),
    Insert(),
    Drop(),
    Replace(),
    Swap(),
    ChangeConversion(),
    ChangeRecipe(),
)
"""Every mutation of the package."""


def _draw_node(
    operations: tuple[type[Operation], ...], rng: np.random.Generator, genes: GeneSource
) -> Operation:
    return genes.draw(genes.choose_operation(operations, rng), rng)


def _with_body(pipeline: Pipeline, body: list[Operation]) -> Pipeline:
    # The recipe stays: what a new node reads of it starts at the parent's value and changes by ChangeRecipe.
    conversion = () if pipeline.conversion is None else (pipeline.conversion,)
    return dataclasses.replace(pipeline, nodes=(*body, *conversion))
