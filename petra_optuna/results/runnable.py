"""A folder that holds a file becomes one that runs it: what its inputs are, a script, and how to serve it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petra_optuna.inference import Recommendation
from petra_optuna.results.run_script import RUN_FILE, check_script, describe_output, run_script
from petra_optuna.tasks import Task

DEPLOYMENT_FILE = "deployment.json"


def write_runnable(folder: Path, task: Task, runs_in: tuple[str, str], answer: Recommendation | None) -> None:
    """Write ``preprocess.json``, ``run.py`` and, with a recommendation, ``deployment.json``, and try them.

    Args:
        folder: Folder that holds ``model.onnx``.
        task: Task of the file.
        runs_in: Runtime and device of the file; a recommendation names a runtime of its own.
        answer: How to serve the file; None leaves batch and threads to the runtime.

    Raises:
        StudyError: When the script fails or computes something else than the file.
    """
    preprocess = {**task.preprocess, "labels": list(task.labels), "metric": task.metric.name}
    write_json(folder / "preprocess.json", {**preprocess, "output": describe_output(task)})
    if answer is not None:
        write_json(folder / DEPLOYMENT_FILE, answer.to_dict())
        runs_in = (answer.setting.runtime, answer.device.device)
    (folder / RUN_FILE).write_text(run_script(*runs_in), encoding="utf-8")
    if answer is None:
        check_script(folder, task, runs_in)
    else:
        check_script(folder, task, runs_in, answer.setting.batch)


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write an object in JSON that people can read."""
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
