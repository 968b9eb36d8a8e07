"""What the best model of a tuning study takes when it is served, measured anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import optuna

from petra_optuna.edgetune import Workload, fetch_file, result_of
from petra_optuna.inference.objective import figures
from petra_optuna.measurement import InferenceSetting, SettingProcess
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.noise import Reading


def best_file(study: optuna.Study, url: str, folder: Path) -> Path:
    """The file of the study's best trial, copied into a folder."""
    path = folder / f"{study.study_name}.onnx"
    fetch_file(result_of(study), url, path)
    return path


def samples_of(workload: Workload) -> Mapping[str, np.ndarray]:
    """Inputs that files are measured on."""
    return to_feeds(workload.task.example)


def served(
    file: Path,
    workload: Workload,
    setting: InferenceSetting,
    cores: tuple[int, ...],
    energy: str | None = None,
) -> Mapping[str, Reading]:
    """Figures of a file in a setting by name, in a process of its own.

    Args:
        file: The file.
        workload: Where its inputs come from.
        setting: How it is served.
        cores: Numbers of the cores that serve.
        energy: Estimator of energy; None for no energy.
    """
    with SettingProcess(file, samples_of(workload), cores, energy=energy) as process:
        return figures(process.measure(setting), Reading(process.anchor_ms()))
