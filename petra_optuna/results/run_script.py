"""The script of an exported folder: what it is told of the outputs, and a run of it on real inputs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch

from petra_optuna.errors import StudyError
from petra_optuna.evaluation import predictor
from petra_optuna.nn.inputs import Inputs, forward, split_up, take, to_feeds
from petra_optuna.results.card import TEMPLATES
from petra_optuna.runtimes import runtime
from petra_optuna.scratch import scratch_folder
from petra_optuna.study.objective import MODEL_FILE
from petra_optuna.tasks import Task

RUN_FILE = "run.py"
RUN_S = 600.0
"""Seconds for starting Python, loading the file and running a few samples."""
_TOLERANCE = 1e-3
_SAMPLES = 8


def run_script(runtime_name: str, device: str) -> str:
    """Text of a script that runs ``model.onnx`` beside it in the runtime on the device."""
    lines = runtime(runtime_name).run_script(device)
    return Template((TEMPLATES / "run.py.txt").read_text(encoding="utf-8")).substitute(
        dataclasses.asdict(lines)
    )


def describe_output(task: Task) -> dict[str, Any]:
    """What the outputs mean, for ``preprocess.json``, as shapes of outputs and targets tell.

    Returns:
        ``kind``: ``class`` where the largest score along ``axis`` is the label, ``each`` where every score
        says whether its label applies, and ``values`` where there are no labels along any axis.
    """
    inputs, targets = next(task.selection.batches(_SAMPLES, limit=_SAMPLES))
    with torch.no_grad():
        shape = tuple(forward(task.model, inputs).shape)
    count = len(task.labels)
    if not count:
        return {"kind": "values"}
    if np.prod(shape[1:]) == 1:
        return {"kind": "class"}
    axes = [axis for axis in (1, len(shape) - 1) if axis < len(shape) and shape[axis] == count]
    if not axes:
        return {"kind": "values"}
    each = tuple(targets.shape) == shape and not bool((targets.sum(axes[0]) == 1).all())
    return {"kind": "each" if each else "class", "axis": axes[0]}


def check_script(folder: Path, task: Task, place: tuple[str, str], batch: int = _SAMPLES) -> None:
    """Run the script in a process of its own, and compare what it computes with the file's outputs.

    Args:
        folder: Folder that holds ``run.py``, ``model.onnx`` and ``preprocess.json``.
        task: Task whose examples are run.
        place: Runtime and device of the file.
        batch: Samples of a call of the script; what a file in dynamic INT8 computes depends on them.

    Raises:
        StudyError: When the script fails or computes something else.
    """
    predict = predictor(folder / MODEL_FILE, 1, *place)
    for inputs in (task.example, *task.other_examples):
        samples = take(inputs, _SAMPLES)
        printed, outputs = _run(folder / RUN_FILE, samples)
        expected = np.concatenate([predict(part) for part in split_up(samples, batch)])
        scale = float(np.abs(expected).max(initial=0.0))
        if outputs.shape != expected.shape or len(printed) != len(expected):
            raise StudyError(
                f"run.py gives outputs {outputs.shape} and {len(printed)} lines for {len(expected)} samples, "
                f"the file {expected.shape}; nothing was exported"
            )
        if not np.abs(outputs.astype(np.float64) - expected).max(initial=0.0) <= _TOLERANCE * scale:
            raise StudyError("run.py computes other outputs than the file; nothing was exported")


def _run(script: Path, inputs: Inputs) -> tuple[list[str], np.ndarray]:
    """What the script prints and saves for these inputs."""
    with scratch_folder("run") as name:
        given, made = Path(name, "inputs.npz"), Path(name, "outputs.npy")
        feeds = to_feeds(inputs)
        if len(feeds) == 1 and not isinstance(inputs, dict):
            given = given.with_suffix(".npy")
            np.save(given, next(iter(feeds.values())))
        else:
            np.savez(given, **feeds)  # type: ignore[arg-type]  # numpy's own flag is not among the names
        command = [sys.executable, str(script), str(given), str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise StudyError(f"run.py gives no answer in {RUN_S:g} s; nothing was exported") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise StudyError(f"run.py fails on the exported file: {lines[-1]}; nothing was exported")
        return done.stdout.splitlines(), np.load(made)
