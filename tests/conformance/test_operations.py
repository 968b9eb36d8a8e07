"""Laws that every operation keeps; a new one is one row, which it gets by being in the default space."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import onnx
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import forward, to_feeds
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import BODY_OPERATIONS, CONVERSIONS, Context, Prune
from petra_optuna.pipeline import Field, Operation, Recipe, declared_fields
from petra_optuna.tasks import Task


def _context(task: Task, node: Operation) -> Context:
    epochs = int(node.values().get("epochs") or 0)
    return Context(task=task, recipe=Recipe(batch_size=32), seed=7, epochs=epochs, data_fraction=0.5)


def _default(kind: type[Operation]) -> Operation:
    return kind(epochs=1) if "epochs" in {field.name for field in declared_fields(kind)} else kind()


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", BODY_OPERATIONS, ids=lambda kind: kind.name)
def test_a_body_operation_leaves_its_input_and_says_what_it_did(
    kind: type[Operation], tiny_task: Task
) -> None:
    node, model = _default(kind), copy.deepcopy(tiny_task.model)
    before, random_state = _state(model), torch.get_rng_state()
    applied = node.apply(model, _context(tiny_task, node))
    assert applied.model is not model
    assert _same(_state(model), before)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert applied.report["changed"] is True
    assert not _same(_state(applied.model), before)
    assert json.loads(json.dumps(applied.report)) == dict(applied.report)
    output = forward(applied.model, tiny_task.example)
    assert output.shape == forward(model, tiny_task.example).shape
    output.sum().backward()


@pytest.mark.parametrize("kind", BODY_OPERATIONS, ids=lambda kind: kind.name)
def test_a_body_operation_is_a_function_of_its_seed(kind: type[Operation], tiny_task: Task) -> None:
    node = _default(kind)
    again = node.apply(tiny_task.model, _context(tiny_task, node)).model
    assert _same(_result(node, tiny_task), _state(again))


@pytest.mark.parametrize(
    "kind", [kind for kind in BODY_OPERATIONS if kind.kind == "structure"], ids=lambda kind: kind.name
)
def test_a_structural_operation_removes_parameters(kind: type[Operation], tiny_task: Task) -> None:
    applied = kind().apply(tiny_task.model, _context(tiny_task, kind()))
    before, after = count_parameters(tiny_task.model), count_parameters(applied.model)
    assert after < before
    assert (applied.report["parameters_before"], applied.report["parameters_after"]) == (before, after)


@pytest.fixture(scope="module")
def exported(tiny_task: Task) -> onnx.ModelProto:
    """A network with convolution and wide linear layers, so that every conversion has work."""
    with seeded(5):
        convolution = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
        model = nn.Sequential(*convolution, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 4))
    return export_onnx(model.eval(), tiny_task.example)


@pytest.mark.parametrize("kind", CONVERSIONS, ids=lambda kind: kind.name)
def test_a_conversion_makes_a_smaller_file_of_the_same_meaning(
    kind: type[Operation], tiny_task: Task, exported: onnx.ModelProto
) -> None:
    before = exported.SerializeToString(deterministic=True)
    applied = kind().apply(exported, _context(tiny_task, kind()))
    assert exported.SerializeToString(deterministic=True) == before
    assert len(applied.model.SerializeToString()) < len(before)
    assert applied.report["changed"] is True
    feeds = to_feeds(tiny_task.example)
    original, converted = (OnnxRuntimeModel(proto).run(feeds) for proto in (exported, applied.model))
    assert not (original == converted).all()  # never the float model under another name
    assert (original.argmax(axis=1) == converted.argmax(axis=1)).mean() >= 0.75


def _other(field: Field) -> Any:
    """A value far from the default."""
    kind = field.distribution
    if isinstance(kind, CategoricalDistribution):
        return next(choice for choice in kind.choices if choice != field.default)
    assert isinstance(kind, FloatDistribution | IntDistribution)
    middle = (kind.low + kind.high) / 2
    return kind.low if float(field.default or 0) > middle else kind.high


PRIORS: dict[type[Operation], dict[str, Any]] = {Prune: {"removed": 0.3}}
"""Where a default would hide a field: cutting half in blocks of 8, both scopes may choose alike."""

FIELDS = [(kind, field) for kind in BODY_OPERATIONS + CONVERSIONS for field in declared_fields(kind)]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[f"{k.name}.{f.name}" for k, f in FIELDS])
def test_every_field_changes_the_result(
    kind: type[Operation],
    field: Field,
    tiny_task: Task,
    digits_task: Task,
    exported: onnx.ModelProto,
) -> None:
    """No option is declared and not used."""
    task = digits_task if kind.kind == "structure" else tiny_task  # wide layers leave pruning a choice
    needed = {field.when.field: field.when.values[0]} if field.when is not None else {}
    base = dataclasses.replace(kind(), **{**PRIORS.get(kind, {}), **needed})
    changed = dataclasses.replace(base, **{field.name: _other(field)})
    if kind.kind == "conversion":
        one, two = (_converted(node, task, exported) for node in (base, changed))
        assert one != two
    else:
        assert not _same(_result(base, task), _result(changed, task))


_results: dict[tuple[Operation, str], Any] = {}
"""What an operation makes of a task's model, of which several fields are compared."""


def _result(node: Operation, task: Task) -> dict[str, torch.Tensor]:
    """Weights of the model."""
    if (node, task.name) not in _results:
        _results[node, task.name] = _state(node.apply(task.model, _context(task, node)).model)
    return _results[node, task.name]


def _converted(node: Operation, task: Task, exported: onnx.ModelProto) -> bytes:
    """The file."""
    if (node, task.name) not in _results:
        proto = node.apply(exported, _context(task, node)).model
        _results[node, task.name] = proto.SerializeToString(deterministic=True)
    return _results[node, task.name]
