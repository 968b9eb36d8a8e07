from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.fast_measurement import BySize
from support.series_files import states, waves, write_series

from petra_optuna.errors import DataError
from petra_optuna.evaluation import Budget, Evaluator
from petra_optuna.measurement import Baseline, ShapeMeasurer
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.operations import QuantizeStatic, Train
from petra_optuna.pipeline import Pipeline, Recipe
from petra_optuna.tasks import Task, build_task
from petra_optuna.tasks.guard import contents

SMALL = {"time": "hour", "window": 24, "filters": 4, "depth": 2, "epochs": 8}
FAR_BELOW_CONTROLS = 20.0
"""RMSE of which the mean and persistence have more than twice as much."""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The next value of a noisy sine, from its past and what announces it."""
    home = tmp_path_factory.mktemp("waves")
    root = write_series(home / "data", waves(1000), target="load", horizon=3, **SMALL)
    return build_task("time_series", data_root=root, cache_dir=home / "cache")


def _predict(task: Task):
    def predict(inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            return forward(task.model, inputs).numpy()

    return predict


def test_the_base_beats_the_mean_and_persistence_in_the_units_of_the_table(task: Task) -> None:
    inputs = torch.cat([batch[0] for batch, _ in task.selection.batches(64)])
    targets = torch.cat([target for _, target in task.selection.batches(64)])
    mean = float((targets - targets.mean()).square().mean().sqrt())
    persistence = float((inputs[:, 0, -1] - targets).square().mean().sqrt())
    assert mean > 50
    assert persistence > 50
    assert task.evaluate(_predict(task), task.selection) < FAR_BELOW_CONTROLS
    assert task.preprocess["channels"] == ["load", "cause"]
    assert (task.metric.name, task.block) == ("rmse", 27)


def test_the_base_is_kept_by_the_data_that_it_saw(tmp_path: Path) -> None:
    schema = {**SMALL, "epochs": 1, "filters": 2, "target": "load"}
    columns = waves(400)
    for rows in (400, 390):
        short = {name: column[:rows] for name, column in columns.items()}
        write_series(tmp_path / "data", short, **schema)
        for _ in range(2):
            build_task(
                "time_series", data_root=tmp_path / "data" / "series.json", cache_dir=tmp_path / "bases"
            )
    assert len(list((tmp_path / "bases").glob("time_series-*.safetensors"))) == 2


def test_classes_are_predicted_from_windows_too(tmp_path: Path) -> None:
    columns = waves(700)
    above = states(700)
    table = {"hour": columns["hour"], "cause": columns["cause"], "state": above}
    root = write_series(
        tmp_path / "data", table, target="state", kind="classification", horizon=0, **SMALL | {"epochs": 12}
    )
    task = build_task("time_series", data_root=root, cache_dir=tmp_path)
    assert task.labels == ("high", "low")
    assert task.preprocess["channels"] == ["cause"]
    (inputs,), targets = next(contents(task.selection).batches(1))
    row = int(np.abs(np.asarray(columns["cause"]) - float(inputs[0, 0, -1])).argmin())
    assert targets.tolist() == [task.labels.index(above[row])]
    assert task.evaluate(_predict(task), task.selection) > 0.9


def test_a_pipeline_becomes_a_file_that_forecasts(task: Task, tmp_path: Path) -> None:
    """Trained, distilled, converted and run; measured by its size, so that no clock is waited for."""
    measurer = ShapeMeasurer(BySize(), Baseline(10.0, {16: 900.0, 64: 1000.0}))
    evaluator = Evaluator(task, measurer, tmp_path, budget=Budget(epochs=1))
    recipe = Recipe(lr=1e-3, distillation_weight=0.5)
    evaluation = evaluator.evaluate(Pipeline((Train(epochs=1), QuantizeStatic()), recipe))
    reasons = {layer["reason"] for layer in evaluation.artifact.lowering["conversion"]["left_float"]}
    assert "the last layer of a task of values stays in float" in reasons
    assert evaluation.values["rmse"] < FAR_BELOW_CONTROLS


GOOD: dict[str, Any] = {**SMALL, "target": "load"}
BAD = {
    "unknown value": ({"horizont": 1}, "unknown value 'horizont'; there are file, time, target, window"),
    "text as number": ({"window": "24"}, "`window` must be a whole number, got '24'"),
    "number as list": ({"channels": 3}, "`channels` must be a list, got 3"),
    "no window": ({"window": 1}, "`window` must be at least 2, got 1"),
    "negative horizon": ({"horizon": -1}, "`horizon` must be at least 0, got -1"),
    "unknown kind": (
        {"kind": "forecast"},
        "`kind` must be one of regression, classification, got 'forecast'",
    ),
    "shares": ({"shares": [1, 0, 1]}, r"`shares` must be three positive numbers, got \[1, 0, 1\]"),
    "gap": ({"gap": -1}, "`gap` must be at least 0, got -1"),
    "seen target": (
        {"horizon": 0, "channels": ["load"]},
        "`channels` names the target 'load', which would be",
    ),
    "no such target": ({"target": "heat"}, "has no column 'heat'; it has"),
    "no such channel": ({"channels": ["load", "heat"]}, "has no column 'heat'; it has hour, load, cause"),
    "long window": ({"window": 200}, "fewer than two samples of 201 rows, with gaps of 200; give a longer"),
    "metric of classes": ({"metric": "accuracy"}, "`metric` accuracy is not for regression"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_schema_that_cannot_be_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    root = write_series(tmp_path, waves(300), **{**GOOD, **changes})
    with pytest.raises(DataError, match=message) as error:
        build_task("time_series", data_root=root, cache_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_one_class_a_constant_channel_and_a_constant_target_are_refused(tmp_path: Path) -> None:
    columns = waves(300)
    one = {**columns, "state": ["on"] * 300}
    root = write_series(tmp_path / "one", one, **{**GOOD, "target": "state", "kind": "classification"})
    with pytest.raises(DataError, match="column 'state' has the one class 'on'; at least 2 are needed"):
        build_task("time_series", data_root=root, cache_dir=tmp_path)
    late = {**columns, "state": ["on"] * 250 + ["off"] * 50}
    root = write_series(tmp_path / "late", late, **{**GOOD, "target": "state", "kind": "classification"})
    with pytest.raises(DataError, match="class 'off' has no training sample"):
        build_task("time_series", data_root=root, cache_dir=tmp_path)
    root = write_series(tmp_path / "still", {**columns, "cause": [7.0] * 300}, **GOOD)
    with pytest.raises(DataError, match="channel 'cause' is constant in the training part; leave it out"):
        build_task("time_series", data_root=root, cache_dir=tmp_path)
    root = write_series(
        tmp_path / "flat", {**columns, "load": [7.0] * 300}, **{**GOOD, "channels": ["cause"]}
    )
    with pytest.raises(DataError, match="the target is 7 in the whole training part; take another one"):
        build_task("time_series", data_root=root, cache_dir=tmp_path)


def test_a_schema_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give a `data_root`, a folder with series.json"):
        build_task("time_series", cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"series.json does not exist; expected a JSON file with file, time"):
        build_task("time_series", data_root=tmp_path, cache_dir=tmp_path)
    for text, message in (("[1]", "must hold an object"), ("{", "is not a readable JSON file")):
        (tmp_path / "series.json").write_text(text)
        with pytest.raises(DataError, match=message):
            build_task("time_series", data_root=tmp_path, cache_dir=tmp_path)
    (tmp_path / "series.json").write_text(json.dumps({"file": "data.csv", "time": "hour", "target": "load"}))
    with pytest.raises(DataError, match="`window` is missing; file, time, target, window must be given"):
        build_task("time_series", data_root=tmp_path, cache_dir=tmp_path)
