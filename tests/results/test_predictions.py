"""The reading of the test split where a metric learns from a part of it first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from petra_optuna.deploy import lower
from petra_optuna.results.confirmation.bootstrap import resample
from petra_optuna.results.confirmation.predictions import PlacedFile, predict
from petra_optuna.tasks import Metric, Task, open_once
from petra_optuna.tasks.metrics import accuracy


def test_a_metric_prepares_once_for_each_file_and_rows_that_it_leaves_out_are_no_samples(
    tiny_task: Task, tmp_path: Path
) -> None:
    calls = []

    def prepare(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(outputs))
        return outputs[10:], targets[10:]

    own = Metric("late", "maximize", accuracy, prepare=prepare)
    task = dataclasses.replace(tiny_task, metric=own)
    assert task.test is not None
    artifact = lower(task.model, task.example, tmp_path / "model.onnx")
    files = {name: PlacedFile(artifact.path, ("onnxruntime", "cpu")) for name in ("baseline", "0")}
    predictions = predict(files, task, open_once(task.test), 1, lambda done: None)
    count = len(task.test)
    assert calls == [count, count]
    assert len(predictions.targets) == count - 10
    outputs = list(predictions.outputs.values())
    assert predictions.quality["0"] == accuracy(outputs[1], predictions.targets)
    drawn = resample(own, outputs, predictions.targets, 20, np.random.default_rng(0))
    assert calls == [count, count]
    plain = Metric("plain", "maximize", accuracy)
    assert np.array_equal(drawn, resample(plain, outputs, predictions.targets, 20, np.random.default_rng(0)))
