"""Every operation on an untrained encoder, and every conversion of its file at mixed lengths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conformance.models import context, node
from support.event_files import write_planted

from petra_optuna.deploy import Templates, lower
from petra_optuna.errors import OperationFailed
from petra_optuna.evaluation import predictor
from petra_optuna.nn.inputs import forward, take
from petra_optuna.operations import BODY_OPERATIONS, CONVERSIONS
from petra_optuna.pipeline import Operation
from petra_optuna.tasks import Task
from petra_optuna.tasks.events.downstream import Classifier
from petra_optuna.tasks.events.event_sequences import read_schema
from petra_optuna.tasks.events.task import event_task

NO_BLOCK = "no residual block"


@pytest.fixture(scope="module", params=["gru", "lstm"])
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Task:
    root = write_planted(tmp_path_factory.mktemp("events"), 60, 12)
    given = read_schema(root / "schema.json")
    recipe = dataclasses.replace(given.coles.recipe, epochs=1)
    coles = dataclasses.replace(
        given.coles, cell=request.param, recipe=recipe, classifier=Classifier(trees=5, least_leaf=2)
    )
    return event_task(given.source, coles, checkpoint=None, cache_dir=root / "cache", seed=0)


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates()


@pytest.mark.parametrize("kind", BODY_OPERATIONS, ids=lambda kind: kind.name)
def test_a_body_operation_leaves_an_encoder(kind: type[Operation], task: Task) -> None:
    if kind.name == "drop_blocks":
        with pytest.raises(OperationFailed, match=NO_BLOCK):
            node(kind).apply(task.model, context(task))
        return
    applied = node(kind).apply(task.model, context(task))
    assert applied.report["changed"]
    with torch.no_grad():
        outputs = forward(applied.model, task.example)
    torch.testing.assert_close(outputs.norm(dim=1), torch.ones(8))
    assert not torch.equal(outputs, forward(task.model, task.example))


@pytest.mark.parametrize("kind", CONVERSIONS, ids=lambda kind: kind.name)
def test_a_converted_file_takes_any_length(
    kind: type[Operation], task: Task, templates: Templates, tmp_path: Path
) -> None:
    artifact = lower(
        task.model,
        task.example,
        tmp_path / "model.onnx",
        node(kind),
        context(task),
        templates=templates,
        dynamic=task.dynamic,
        others=task.other_examples,
    )
    predict = predictor(artifact.path, threads=1)
    short, _ = next(task.calibration.batches(4))
    for inputs in (task.example, short, take(short, 1)):
        with torch.no_grad():
            expected = forward(task.model, inputs).numpy()
        similarity = (predict(inputs).astype(np.float32) * expected).sum(1)
        assert (similarity > 0.95).all()
    assert np.isfinite(task.evaluate(predict, task.selection))
