"""Every operation on every model, and legal pairs and triples on a sample of models.

The fast part makes one file of each model; the whole tables are marked slow.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.models import CASES, EXPECTED_FAILURES, LARGE, context, node
from torch import Tensor, nn

from petra_optuna.deploy import lower
from petra_optuna.errors import TrialError
from petra_optuna.evaluation.checkpoint import from_bytes, to_bytes
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.operations import BODY_OPERATIONS, CONVERSIONS, default_space
from petra_optuna.pipeline import Applied, Pipeline
from petra_optuna.tasks import Task

KINDS = {kind.name: kind for kind in BODY_OPERATIONS + CONVERSIONS}
BODY = tuple(kind.name for kind in BODY_OPERATIONS)
LAST = tuple(kind.name for kind in CONVERSIONS)

FAST = {
    "residual": ("drop_blocks", "static"),
    "resnet18": ("prune", "static"),
    "mobilenet_v3_small": ("prune", "fp16"),
    "densenet": ("low_rank", "fp16"),
    "vision_transformer": ("prune", "fp16"),
    "inception_time": ("qat", "static"),
    "gru": ("prune", "dynamic"),
    "lstm": ("low_rank", "dynamic"),
    "embedding_mlp": ("low_rank", "dynamic"),
    "functional": ("prune", "static"),
    "shared_modules": ("train", "bf16"),
    "tied_weights": ("regularized_train", "dynamic"),
    "class_token": ("low_rank", "static"),
    "number_argument": ("qat", "fp16"),
    "transformer_encoder": ("low_rank", "fp16"),
    "swin": ("prune", "dynamic"),
    "deit": ("prune", "fp16"),
    "bert": ("prune", "static"),
    "distilbert": ("regularized_train", "dynamic"),
}
"""A body operation and a conversion for each model; every operation at least once."""

CHAINED = ("residual", "vision_transformer", "gru", "functional")
"""Models on which operations are chained: residual sums, attention, recurrence, concatenation."""

TRIPLES = 12
"""Drawn for each model on which operations are chained."""


@functools.cache
def _task(model: str) -> Task:
    return CASES[model]()


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _apply(name: str, given: nn.Module, model: str) -> nn.Module:
    """What the operation makes of ``given``, with every law of a body operation checked."""
    before, shape = _state(given), repr(given)
    applied = node(KINDS[name]).apply(given, context(_task(model)))
    assert applied.model is not given
    assert _same(_state(given), before)
    assert repr(given) == shape
    assert not any(module.training for module in itertools.chain(given.modules(), applied.model.modules()))
    _check_report(name, given, applied, model)
    _check_runs(applied.model, model)
    _check_checkpoint(applied.model, model)
    return applied.model


def _check_report(name: str, given: nn.Module, applied: Applied[nn.Module], model: str) -> None:
    report, example = applied.report, _task(model).example
    assert json.loads(json.dumps(report)) == dict(report)
    assert report["changed"] is True or report["reason"]
    assert report["changed"] is not _same(_state(given), _state(applied.model))
    parameters = (count_parameters(given), count_parameters(applied.model))
    macs = (count_macs(given, example), count_macs(applied.model, example))
    if KINDS[name].kind == "structure":
        assert (report["parameters_before"], report["parameters_after"]) == parameters
        assert (report["macs_before"], report["macs_after"]) == macs
        assert all(report["left_out"].values())
    else:
        assert parameters[0] == parameters[1]
        assert macs[0] == macs[1]


def _check_runs(model: nn.Module, name: str) -> None:
    private = copy.deepcopy(model)
    output = forward(private, _task(name).example)
    assert output.shape == forward(_task(name).model, _task(name).example).shape
    assert torch.isfinite(output).all()
    output.square().sum().backward()
    assert any(parameter.grad is not None for parameter in private.parameters())


def _check_checkpoint(model: nn.Module, name: str) -> None:
    task = _task(name)
    data = to_bytes(model, task.model)
    rebuilt = from_bytes(data, task.model)
    assert _same(_state(rebuilt), _state(model))
    with torch.no_grad():
        assert torch.equal(forward(rebuilt, task.example), forward(model, task.example))
    assert to_bytes(rebuilt, task.model) == data


def _lower(given: nn.Module, model: str, conversion: str | None, folder: Path) -> None:
    """Lowering checks that the float file computes what the model computes."""
    task = _task(model)
    last = node(KINDS[conversion]) if conversion is not None else None
    artifact = lower(given, task.example, folder / "model.onnx", last, context(task))
    report: Any = artifact.lowering["conversion"]
    assert artifact.size_bytes == (folder / "model.onnx").stat().st_size
    if conversion is not None:
        assert report["op"] == conversion
        assert report["changed"] is True or report["reason"]


def _run(names: tuple[str, ...], model: str, folder: Path) -> None:
    """The body, with its laws, then the file."""
    last = names[-1] if names[-1] in LAST else None
    given = _task(model).model
    for name in names[: len(names) - (last is not None)]:
        given = _apply(name, given, model)
    _lower(given, model, last, folder)


def _can(model: str, names: tuple[str, ...]) -> bool:
    return not any((name, model) in EXPECTED_FAILURES for name in names)


def _legal(names: tuple[str, ...]) -> bool:
    return not default_space().violations(Pipeline(tuple(KINDS[name]() for name in names)))


PAIRS = [
    (model, names)
    for model in CHAINED
    for names in itertools.chain(itertools.permutations(BODY, 2), itertools.product(BODY, LAST))
    if _can(model, names) and _legal(names)
]


def _triples() -> list[tuple[str, tuple[str, ...]]]:
    """Two different body operations and a conversion, or three, drawn with a fixed seed."""
    drawn = []
    for model in CHAINED:
        body = itertools.permutations(BODY, 3)
        ended = ((*pair, last) for pair in itertools.permutations(BODY, 2) for last in LAST)
        every = [names for names in itertools.chain(body, ended) if _can(model, names) and _legal(names)]
        drawn += [(model, names) for names in random.Random(model).sample(every, TRIPLES)]
    return drawn


def _id(value: object) -> str:
    return "-".join(value) if isinstance(value, tuple) else str(value)


def test_the_tables_name_what_there_is() -> None:
    assert set(FAST) == set(CASES)
    assert {name for names in FAST.values() for name in names} == set(KINDS)
    assert {name for name, _ in EXPECTED_FAILURES} <= set(KINDS)
    assert {model for _, model in EXPECTED_FAILURES} | set(LARGE) <= set(CASES)


@pytest.mark.parametrize("model", CASES)
def test_outputs_differ_between_samples(model: str) -> None:
    """Otherwise every comparison of outputs would pass."""
    task = _task(model)
    with torch.no_grad():
        outputs = forward(task.model, task.example)
    assert outputs.std(0).mean() > 1e-2
    assert outputs.abs().max() < 10


@pytest.mark.parametrize(
    ("model", "names"),
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[0] in LARGE)) for row in FAST.items()],
    ids=_id,
)
def test_a_sample_of_operations(model: str, names: tuple[str, ...], tmp_path: Path) -> None:
    _run(names, model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", CASES)
@pytest.mark.parametrize("name", KINDS)
def test_every_operation_on_every_model(name: str, model: str, tmp_path: Path) -> None:
    reason = EXPECTED_FAILURES.get((name, model))
    if reason is None:
        _run((name,), model, tmp_path)
        return
    with pytest.raises(TrialError, match=re.escape(reason)):
        _run((name,), model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "names"), PAIRS, ids=_id)
def test_pairs_of_operations(model: str, names: tuple[str, ...], tmp_path: Path) -> None:
    _run(names, model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "names"), _triples(), ids=_id)
def test_triples_of_operations(model: str, names: tuple[str, ...], tmp_path: Path) -> None:
    _run(names, model, tmp_path)
