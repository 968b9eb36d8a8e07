"""Every pipeline of a space without continuous fields, each with the network that it makes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from petra_optuna.errors import TrialError, UserError
from petra_optuna.pipebench.coefficients import Coefficients
from petra_optuna.pipebench.network import Network, Setting
from petra_optuna.pipeline import Operation, SearchSpace, allot, declared_fields
from petra_optuna.pipeline.fields import Value

MOST = 100_000

Nodes = tuple[Operation, ...]


def count(space: SearchSpace) -> int:
    """How many pipelines the space has, counting those that name an implied conversion twice.

    Raises:
        UserError: When a field is continuous, or a node reads the recipe.
    """
    body = sum(len(_settings(kind)) for kind in space.body)
    conversions = 1 + sum(len(_settings(kind)) for kind in space.conversions)
    lengths = range(space.max_length + 1)
    return conversions * sum(math.prod([body] * length) for length in lengths)


def is_enumerable(space: SearchSpace) -> bool:
    """Whether the space is discrete and small enough."""
    try:
        return count(space) <= MOST
    except UserError:
        return False


def enumerate_networks(
    space: SearchSpace, coefficients: Coefficients, epochs: int
) -> Iterator[tuple[Nodes, Network]]:
    """Pipelines with what they make, shorter bodies first; prefixes are computed once. Failures are left out.

    Args:
        space: Space of ``MOST`` pipelines or fewer.
        coefficients: Numbers of the surrogate.
        epochs: Most epochs that a pipeline may spend.

    Raises:
        UserError: When the space cannot be enumerated.
    """
    if count(space) > MOST:
        raise UserError(
            f"the space has {count(space)} pipelines, at most {MOST} can be enumerated; use reference_front"
        )
    nodes = [node for kind in space.body for node in _settings(kind)]
    conversions = [node for kind in space.conversions for node in _settings(kind)]
    level: list[tuple[Nodes, Network, int]] = [((), Network(), epochs)]
    for length in range(space.max_length + 1):
        for body, state, _ in level:
            yield from _files(body, state, conversions, coefficients)
        if length < space.max_length:
            level = [
                (*after, left)
                for (body, state, budget), node in itertools.product(level, nodes)
                for after, left in _after(body, state, node, budget, coefficients)
            ]


def _after(
    body: Nodes, state: Network, node: Operation, budget: int, coefficients: Coefficients
) -> Iterator[tuple[tuple[Nodes, Network], int]]:
    (spent,) = allot((node,), budget)
    try:
        yield ((*body, node), node.apply(state, Setting(coefficients, epochs=spent)).model), budget - spent
    except TrialError:
        return


def _files(
    body: Nodes, state: Network, conversions: list[Operation], coefficients: Coefficients
) -> Iterator[tuple[Nodes, Network]]:
    if all(node.implies is None for node in body):
        yield body, state
    for node in conversions:
        yield (*body, node), node.apply(state, Setting(coefficients)).model


def _settings(operation: type[Operation]) -> list[Operation]:
    fields = declared_fields(operation)
    if operation.recipe_fields:
        raise UserError(f"{operation.name} reads the recipe; such spaces are not enumerated")
    choices = [_values(f"{operation.name}.{field.name}", field.distribution) for field in fields]
    nodes = (
        operation(**dict(zip((field.name for field in fields), row, strict=True)))
        for row in itertools.product(*choices)
    )
    return list(dict.fromkeys(node.canonical() for node in nodes))


def _values(name: str, distribution: BaseDistribution) -> list[Value]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        raise UserError(f"{name} is continuous; only discrete spaces can be enumerated")
    steps = round((distribution.high - distribution.low) / distribution.step)
    return [distribution.low + index * distribution.step for index in range(steps + 1)]
