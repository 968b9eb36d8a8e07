"""A whole study in another runtime than the default one."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget, predictor, quality_of
from petra_optuna.evolution import Bounds, hypervolume
from petra_optuna.measurement import DeviceProfile
from petra_optuna.operations import (
    BODY_OPERATIONS,
    BFloat16,
    QuantizeDynamic,
    QuantizeStatic,
    Train,
    default_space,
)
from petra_optuna.pipeline import Pipeline, SearchSpace, encode
from petra_optuna.results import confirm, export_trial
from petra_optuna.samplers import BOUNDS, directions_of
from petra_optuna.study import StudyRecord, optimize
from petra_optuna.study import record as attributes
from petra_optuna.tasks import Task

openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)


@pytest.fixture(scope="module")
def study(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    """The original, trained on, static INT8 and, where this CPU has it, BF16, for OpenVINO."""
    offered = default_space(runtime="openvino").conversions
    conversions = tuple(operation for operation in (BFloat16, QuantizeStatic) if operation in offered)
    space = SearchSpace((Train,), conversions, max_length=1)
    fourth = (BFloat16(),) if BFloat16 in conversions else (Train(epochs=1), QuantizeStatic())
    folder = tmp_path_factory.mktemp("openvino")
    url = f"sqlite:///{folder / 'study.db'}"
    profile = DeviceProfile.parse("cpu@openvino")
    given = {"storage": url, "space": space, "budget": Budget(1), "profile": profile}
    found = optimize(tiny_task, trials=3, cache=folder / "cache", **given)
    found.enqueue_trial(encode(Pipeline(fourth), space))
    return optimize(tiny_task, trials=4, cache=folder / "cache", **given)


@openvino
def test_every_trial_ran_in_the_runtime_of_the_profile(study: optuna.Study) -> None:
    version = f"openvino {importlib.metadata.version('openvino')}"
    records = [StudyRecord(study).evaluation(trial.number) for trial in study.trials]
    assert len(records) == 4
    for record in records:
        measured = record["measurements"]
        assert {item["runtime"] for item in (measured["latency"], *measured["throughput"])} == {version}
        assert record["lowering"]["runtime"] == "openvino"
    host = study.user_attrs[attributes.BASELINE]["host"]
    assert host["openvino"] == importlib.metadata.version("openvino")


@openvino
def test_each_file_computes_in_the_type_of_its_conversion(study: optuna.Study) -> None:
    by_precision = {}
    for trial in study.trials:
        lowering = StudyRecord(study).evaluation(trial.number)["lowering"]
        by_precision[lowering["precision"]] = lowering["parity"]["kernels"]
    assert all(name.endswith(".f32") for name in by_precision["float32"]["float"])
    assert by_precision["int8_static"]["int8"]
    assert not by_precision["int8_static"]["float"]
    if "bfloat16" in by_precision:
        assert all(name.endswith(".bf16") for name in by_precision["bfloat16"]["float"])


@openvino
def test_quality_is_that_of_the_runtime(study: optuna.Study, tiny_task: Task, tmp_path: Path) -> None:
    for trial in study.trials:
        record = StudyRecord(study).evaluation(trial.number)
        path = tmp_path / f"{trial.number}.onnx"
        StudyRecord(study).fetch(record["artifact"]["id"], path)
        expected = quality_of(path, tiny_task, tiny_task.selection, 1, "openvino")
        assert record["values"]["accuracy"] == expected


@openvino
def test_the_exported_folder_runs_in_the_runtime_and_gives_what_was_measured(
    study: optuna.Study, tiny_task: Task, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_trial(study, 3, out, tiny_task)
    (inputs, _) = next(tiny_task.selection.batches(16, limit=16))
    np.save(tmp_path / "inputs.npy", inputs[0].numpy())
    guard = (
        "import runpy, sys; sys.modules['onnxruntime'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    )
    command = [sys.executable, "-c", guard, str(out / "run.py"), str(tmp_path / "inputs.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = predictor(out / "model.onnx", 1, "openvino")(inputs)
    assert done.stdout.split("\n")[:-1] == [tiny_task.labels[index] for index in scores.argmax(axis=1)]
    card = (out / "card.md").read_text()
    assert "run in openvino 2" in card
    assert "runs it with openvino and numpy" in card


@openvino
def test_a_confirmation_runs_the_members_in_their_runtime(study: optuna.Study, tiny_task: Task) -> None:
    found = confirm(study, tiny_task, bootstrap=100, rounds=1)
    assert found.members
    assert not found.failures


def test_pytorch_is_measured_and_shipped_like_any_other(tiny_task: Task, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    profile = DeviceProfile.parse("cpu@torch")
    found = optimize(tiny_task, trials=1, storage=url, profile=profile, cache=tmp_path / "cache")
    assert _volume_of_the_original(found) >= 1 - 1e-9  # slow as it is there, it lies within the bounds
    record = StudyRecord(found).evaluation(0)
    assert record["lowering"]["parity"]["kernels"]["float"].keys() == {"Conv.f32", "Gemm.f32"}
    assert record["measurements"]["latency"]["runtime"] == f"torch {importlib.metadata.version('torch')}"
    export_trial(found, 0, tmp_path / "out", tiny_task)
    (inputs, _) = next(tiny_task.selection.batches(8, limit=8))
    np.savez(tmp_path / "inputs.npz", input=inputs[0].numpy())
    command = [sys.executable, str(tmp_path / "out" / "run.py"), str(tmp_path / "inputs.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = predictor(tmp_path / "out" / "model.onnx", 1, "torch")(inputs)
    assert done.stdout.split("\n")[:-1] == [tiny_task.labels[index] for index in scores.argmax(axis=1)]


def _volume_of_the_original(study: optuna.Study) -> float:
    """Hypervolume of the original as it was measured in the study's runtime before the first trial."""
    record = study.user_attrs[attributes.BASELINE]
    values = {**record["values"], **record["elsewhere"]}
    point = [values[name] for name, _ in StudyRecord(study).specification.objectives]
    bounds = Bounds.from_dict(study.user_attrs[BOUNDS])
    return hypervolume([point], directions_of(study), bounds)


def test_a_space_that_the_runtime_does_not_run_is_refused_before_anything_is_written(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = DeviceProfile(runtime="openvino")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    if importlib.util.find_spec("openvino") is not None:
        space = SearchSpace(BODY_OPERATIONS, (QuantizeStatic, QuantizeDynamic))
        with pytest.raises(UserError, match="'openvino' on cpu does not run dynamic as promised"):
            optimize(tiny_task, trials=1, storage=url, profile=profile, space=space)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for attempt in (
        lambda: DeviceProfile.parse("cpu@openvino"),
        lambda: optimize(tiny_task, trials=1, storage=url, profile=profile),
    ):
        with pytest.raises(UserError, match=r"pip install petra-optuna\[openvino\]") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
