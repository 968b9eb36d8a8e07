"""The baseline: the original as a file, and its times. Everything in a study is compared with it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

from petra_optuna.deploy import lower
from petra_optuna.errors import TaskError, TrialError
from petra_optuna.evaluation import ConvLayouts, LoweredModel, Shipment, count_values
from petra_optuna.measurement import (
    Baseline,
    DeviceProfile,
    MeasuringProcess,
    ShapeMeasurer,
    ShapeStore,
    shape_signature,
)
from petra_optuna.nn.inputs import Inputs, batch_size_of, mapped, take, to_feeds
from petra_optuna.pipeline import Pipeline
from petra_optuna.tasks import Task

BASELINE_FILE = "baseline.onnx"
EAGER_S = 0.5
"""Seconds for which PyTorch eager is timed at each batch size, for the report; nothing is decided by it."""


def measure_baseline(task: Task, profile: DeviceProfile, path: Path, store: ShapeStore) -> dict[str, Any]:
    """Lower the original to ``path`` in FP32 and measure it; PyTorch eager is reported beside it.

    Args:
        task: Task with the original model.
        profile: Device that the study measures for.
        path: Where the baseline's file goes.
        store: What this machine measured before, for example when it was less busy.

    Returns:
        ``values``: those of the baseline by name. ``elsewhere``: what the original measures in the profile's
        runtime, empty where that is the baseline's. ``baseline``: ``Baseline.to_dict``, the best that
        this machine measured. ``measured``: the same of now alone. ``eager``: latency
        and throughput of PyTorch eager. ``host``: the machine. ``sha256``: that of the file.
        ``convolutions``: both layouts of one-dimensional convolutions, None where the model has none.

    Raises:
        TaskError: When the original cannot be exported, run or measured.
    """
    host = profile.host()
    try:
        lowered, layouts = lower_baseline(task, profile, path)
        unlimited = dataclasses.replace(profile, memory_limit_bytes=None)  # the limit is for candidates
        with MeasuringProcess(unlimited, path, to_feeds(task.example)) as process:
            measured = process.measure_baseline()
            baseline = store.best_baseline(shape_signature(path, [profile.to_dict(), host]), measured)
            elsewhere = _elsewhere(task, profile, path, process, baseline)
    except TrialError as error:
        raise TaskError(f"the original model of task {task.name!r} cannot be deployed: {error}") from error
    return {
        "values": {
            task.metric.name: lowered.quality,
            **baseline.own_values(),
            "size_bytes": float(lowered.artifact.size_bytes),
            "train_s": 0.0,
            **count_values(task.model, Pipeline(), task),
        },
        "elsewhere": elsewhere,
        "baseline": baseline.to_dict(),
        "measured": measured.to_dict(),
        "eager": _eager(task, profile),
        "host": host,
        "sha256": lowered.artifact.sha256,
        "convolutions": layouts.to_dict() if layouts else None,
    }


def lower_baseline(task: Task, profile: DeviceProfile, path: Path) -> tuple[LoweredModel, ConvLayouts | None]:
    """Lower the original to ``path`` in FP32 for the baseline's runtime, in the layout that is faster there.

    A slower layout would let every candidate win by its layout alone.

    Raises:
        TrialError: When it cannot be exported, run or measured.
    """
    runtime, device = profile.baseline_place
    shipment = Shipment(task.model, task, path, runtime=runtime, device=device)
    first = shipment.lower()
    if first.artifact.lowering["convolutions"] is None:
        return first, None
    exported = path.with_stem(f"{path.stem}-exported")  # the layout that does not ship is removed
    shutil.copyfile(path, exported)
    alone = dataclasses.replace(profile, runtime=runtime, memory_limit_bytes=None)
    with MeasuringProcess(alone, exported, to_feeds(task.example)) as process:
        measurer = ShapeMeasurer(process, process.measure_baseline())
        shipped, _, layouts = shipment.choose_layout(first, measurer)
    exported.unlink()
    if shipped is not first:
        shipped.artifact.path.replace(path)
    return dataclasses.replace(shipped, artifact=dataclasses.replace(shipped.artifact, path=path)), layouts


def _elsewhere(
    task: Task, profile: DeviceProfile, path: Path, process: MeasuringProcess, baseline: Baseline
) -> dict[str, float]:
    """Values of the original in the profile's runtime, by name; empty where that is the baseline's."""
    if profile.place == profile.baseline_place:
        return {}
    runtime, device = profile.place
    file = path.with_stem(f"{path.stem}-{runtime}")
    lower(
        task.model,
        task.example,
        file,
        runtime=runtime,
        device=device,
        dynamic=task.dynamic,
        others=task.other_examples,
    )
    measured = process.measure(file)
    file.unlink()
    return baseline.values(measured)


def _eager(task: Task, profile: DeviceProfile) -> dict[str, float]:
    latency_s = _eager_seconds(task, profile.latency_batch, profile.threads)
    batches = profile.throughput_batches
    rates = [batch / _eager_seconds(task, batch, profile.threads) for batch in batches]
    return {"latency_ms": 1e3 * latency_s, "throughput_per_s": max(rates)}


def _eager_seconds(task: Task, batch: int, threads: int) -> float:
    inputs = _tile(task.example, batch)
    timer = Timer(
        "forward(model, inputs)",
        num_threads=threads,
        globals={"forward": _eager_forward, "model": task.model, "inputs": inputs},
    )
    return float(timer.blocked_autorange(min_run_time=EAGER_S).median)


def _eager_forward(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Call the model as its user does: PyTorch may run its attention in one fused operator."""
    with torch.inference_mode():
        outputs: torch.Tensor = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    return outputs


def _tile(inputs: Inputs, batch: int) -> Inputs:
    times = -(-batch // batch_size_of(inputs))

    def tile(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat(times, *([1] * (tensor.dim() - 1)))

    return take(mapped(inputs, tile), batch)
