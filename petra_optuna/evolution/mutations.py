"""How a pipeline changes: one small class each, local, structural or global. Never crossover.

A mutation is a pure function of its arguments. A new one states its name and one ``propose``; the rules
that hold for all of them (a child differs from its parent, a child is legal) are in ``Mutation`` alone.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
from typing import ClassVar, Self

import numpy as np

from petra_optuna.evolution.genes import RANDOM, GeneSource
from petra_optuna.pipeline import Operation, Pipeline, SearchSpace


class Mutation(abc.ABC):
    """One kind of change.

    Class attributes:
        name: Key in the rates and in the trials' records.
        steps: Whether it moves values by small steps, so that the size of a step matters.
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
        places = [index for index, node in enumerate(nodes) if node.values()]
        if not places:
            return None
        place = places[int(rng.integers(len(places)))]
        changed = self.genes.changed(nodes[place], rng)
        if changed is None:
            return None
        nodes[place] = changed
        return dataclasses.replace(pipeline, nodes=tuple(nodes))


class Insert(Mutation):
    """Structural: one more node."""

    name = "insert"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Put a fresh node anywhere in the body."""
        if len(pipeline.body) >= space.max_length:
            return None
        body = list(pipeline.body)
        place = int(rng.integers(len(body) + 1))
        body.insert(place, _fresh_node(space.operations_at(place), rng, self.genes))
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
    """Structural: another operation in a node's place."""

    name = "replace"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Put a fresh node of another operation where one of the body stands."""
        body = list(pipeline.body)
        if not body:
            return None
        place = int(rng.integers(len(body)))
        others = tuple(kind for kind in space.operations_at(place) if kind is not type(body[place]))
        if not others:
            return None
        body[place] = _fresh_node(others, rng, self.genes)
        return _with_body(pipeline, body)


class Swap(Mutation):
    """Structural: two nodes of the body change places."""

    name = "swap"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Exchange two nodes."""
        body = list(pipeline.body)
        if len(body) < 2:
            return None
        first, second = (int(place) for place in rng.choice(len(body), size=2, replace=False))
        body[first], body[second] = body[second], body[first]
        return _with_body(pipeline, body)


class ChangeConversion(Mutation):
    """Structural: another conversion of the file, or none."""

    name = "change_conversion"

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Choose among the other conversions and, where there is one now, none."""
        now = pipeline.conversion
        others: list[type[Operation] | None] = [kind for kind in space.conversions if kind is not type(now)]
        if now is not None:
            others.append(None)
        if not others:
            return None
        kind = others[int(rng.integers(len(others)))]
        conversion = () if kind is None else (self.genes.fresh(kind, rng),)
        return dataclasses.replace(pipeline, nodes=(*pipeline.body, *conversion))


class ChangeRecipe(Mutation):
    """Global: another recipe."""

    name = "change_recipe"
    steps = True

    def propose(self, pipeline: Pipeline, space: SearchSpace, rng: np.random.Generator) -> Pipeline | None:
        """Change model-level parameters that a node reads."""
        used = {name for node in pipeline.nodes for name in node.recipe_fields}
        recipe = self.genes.changed(pipeline.recipe, rng, among=used)
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


def _fresh_node(kinds: tuple[type[Operation], ...], rng: np.random.Generator, genes: GeneSource) -> Operation:
    return genes.fresh(genes.kind(kinds, rng), rng)


def _with_body(pipeline: Pipeline, body: list[Operation]) -> Pipeline:
    # The recipe stays: what a new node reads of it starts at the parent's value and changes by ChangeRecipe.
    conversion = () if pipeline.conversion is None else (pipeline.conversion,)
    return dataclasses.replace(pipeline, nodes=(*body, *conversion))
