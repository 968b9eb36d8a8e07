"""What the best model of a tuning study takes when it is served, measured anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import optuna

from petra_optuna.edgetune import TuningResult, fetch_file, result_of
from petra_optuna.inference.objective import figures
from petra_optuna.measurement import InferenceSetting, SettingProcess
from petra_optuna.noise import Reading


def best_file(study: optuna.Study, url: str, folder: Path) -> Path:
    """The file of the study's best trial, copied into a folder."""
    path = folder / f"{study.study_name}.onnx"
    fetch_file(result_of(study), url, path)
    return path


def shown_model(result: TuningResult) -> str:
    """Parameters of the model in a cell of a table."""
    return ", ".join(f"{name} {value}" for name, value in result.model.items())


def served(
    file: Path,
    feeds: Mapping[str, np.ndarray],
    setting: InferenceSetting,
    cores: tuple[int, ...],
    energy: str | None = None,
) -> Mapping[str, Reading]:
    """Figures of a file in a setting by name, in a process of its own.

    Args:
        file: The file.
        feeds: Sample inputs by name, batch first.
        setting: How it is served.
        cores: Numbers of the cores that serve.
        energy: Estimator of energy; None for no energy.
    """
    with SettingProcess(file, feeds, cores, energy=energy) as process:
        return figures(process.measure(setting), Reading(process.anchor_ms()))
