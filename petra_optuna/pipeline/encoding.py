"""Pipelines as conditional Optuna parameters. Parameter names exist in this file only.

``length`` counts the body; ``n{i}.op`` names body node i and ``n{i}.{op}.{field}`` its fields;
``convert.op`` and ``convert.{op}.{field}`` are the conversion; ``recipe.{field}`` stands where a node
reads it. One walker visits the names in order; suggest, encode and decode differ in their source of
the values. Every assignment decodes to a pipeline of the order grammar; where pipelines start from
initialisation, ``n0.op`` offers only what may train from there. A field that was renamed is read
under its former names as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from petra_optuna.errors import PipelineError
from petra_optuna.pipeline.fields import Fielded, Value, check_value, declared_fields, describe, is_active
from petra_optuna.pipeline.operation import Operation
from petra_optuna.pipeline.pipeline import Pipeline
from petra_optuna.pipeline.recipe import Recipe
from petra_optuna.pipeline.space import NO_CONVERSION, RECIPE, SearchSpace

T = TypeVar("T", bound=Fielded)
Draw = Callable[[str, BaseDistribution], Any]


def suggest(trial: BaseTrial, space: SearchSpace) -> Pipeline:
    """Ask the trial for every parameter of a pipeline, in order."""
    return walk(space, lambda name, distribution: suggest_value(trial, name, distribution))


def encode(pipeline: Pipeline, space: SearchSpace) -> dict[str, Value]:
    """The parameters that decode to this pipeline.

    Raises:
        PipelineError: When the pipeline is not in the space.
    """
    violations = space.violations(pipeline)
    if violations:
        raise PipelineError(f"{pipeline.notation} cannot be encoded: {'; '.join(violations)}")
    values: dict[str, Any] = {"length": len(pipeline.body), "convert.op": NO_CONVERSION}
    for index, node in enumerate(pipeline.body):
        values.update(_flatten(f"n{index}", node))
    if pipeline.conversion is not None:
        values.update(_flatten("convert", pipeline.conversion))
    values.update({f"{RECIPE}.{name}": value for name, value in pipeline.recipe.active_values().items()})
    return _collect(space, values)


def decode(params: Mapping[str, Any], space: SearchSpace) -> Pipeline:
    """The pipeline that the parameters stand for; former names of fields are read too.

    Parameters that no node reads are ignored.

    Raises:
        PipelineError: When a parameter is missing or outside its range.
    """
    params = present_params(params, space)
    return walk(space, lambda name, distribution: _take(params, name))


def distributions(params: Mapping[str, Any], space: SearchSpace) -> dict[str, BaseDistribution]:
    """The distribution of every parameter that the pipeline of ``params`` has, in order.

    Raises:
        PipelineError: When a parameter is missing or outside its range.
    """
    params = present_params(params, space)
    seen: dict[str, BaseDistribution] = {}

    def draw(name: str, distribution: BaseDistribution) -> Any:
        seen[name] = distribution
        return _take(params, name)

    walk(space, draw)
    return seen


def present_params(params: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """The parameters by the names that they have now; a present name comes before a former one."""
    moved: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for name, value in params.items():
        prefix, _, field = name.rpartition(".")
        present = space.former_names.get((prefix.rpartition(".")[2], field))
        if present is None:
            kept[name] = value
        else:
            moved[f"{prefix}.{present}"] = value
    return {**moved, **kept}


def walk(space: SearchSpace, draw: Draw) -> Pipeline:
    """Visit every parameter in order, calling ``draw(name, distribution)`` for its value.

    Raises:
        PipelineError: When a value is none that the parameter may have.
    """
    length = draw("length", space.length_distribution)
    if not isinstance(length, int):
        raise PipelineError(f"length must be in {describe(space.length_distribution)}, got {length!r}")
    nodes = [
        _node(f"n{index}", space.operation(draw(f"n{index}.op", space.body_distribution(index)), index), draw)
        for index in range(length)
    ]
    convert = draw("convert.op", space.conversion_distribution)
    if convert != NO_CONVERSION:
        nodes.append(_node("convert", space.operation(convert), draw))
    used = {name for node in nodes for name in node.recipe_fields}
    return Pipeline(tuple(nodes), _fields(Recipe, RECIPE, draw, only=used))


def _node(prefix: str, operation: type[Operation], draw: Draw) -> Operation:
    return _fields(operation, f"{prefix}.{operation.name}", draw)


def _fields(cls: type[T], prefix: str, draw: Draw, only: set[str] | None = None) -> T:
    values: dict[str, Value] = {}
    for field in declared_fields(cls):
        if (only is None or field.name in only) and is_active(field, values):
            values[field.name] = draw(f"{prefix}.{field.name}", field.distribution)
            check_value(cls.__name__, field, values[field.name])
    return cls(**values)


def _flatten(prefix: str, node: Operation) -> dict[str, Value]:
    fields = {f"{prefix}.{node.name}.{name}": value for name, value in node.active_values().items()}
    return {f"{prefix}.op": node.name, **fields}


def _collect(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Value]:
    collected: dict[str, Value] = {}

    def draw(name: str, distribution: BaseDistribution) -> Any:
        collected[name] = values[name]
        return values[name]

    walk(space, draw)
    return collected


def _take(params: Mapping[str, Any], name: str) -> Any:
    if name not in params:
        raise PipelineError(f"parameter {name!r} is missing; given: {', '.join(params) or 'none'}")
    return params[name]


def suggest_value(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    """Ask the trial for a parameter of this distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )
