"""Options that several commands share, declared once, and the Python arguments that they stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from petra_optuna.database import DEFAULT_URL
from petra_optuna.errors import UserError

SEARCH: Final = "Search"
LIMITS: Final = "Objectives and limits"
TRAINING: Final = "Training"
RUNGS: Final = "Rungs (stop weak trainings early)"
STORAGE: Final = "Storage and workers"
PANELS: Final = (SEARCH, LIMITS, TRAINING, RUNGS, STORAGE)
"""Panels of the help text, in the order in which ``petra run --help`` shows them."""

Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        help="Database: SQLAlchemy URL or SQLite file.",
        show_default=DEFAULT_URL,
        rich_help_panel=STORAGE,
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study", help="Study name; optional if the database holds one study.", rich_help_panel=STORAGE
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials", help="Total finished trials to reach, controls included.", rich_help_panel=SEARCH
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", help="Seconds after which no new trial starts.", rich_help_panel=SEARCH),
]
Generations = Annotated[
    int | None,
    typer.Option(
        "--generations",
        help="Stop after N population-sized blocks of trials.",
        rich_help_panel=SEARCH,
    ),
]
StagnationTrials = Annotated[
    int | None,
    typer.Option(
        "--stagnation",
        help="Stop when N trials gain under 1 % of hypervolume.",
        rich_help_panel=SEARCH,
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="Stop once one trial reaches NAME=VALUE; repeatable, all must hold.",
        rich_help_panel=SEARCH,
    ),
]
Workers = Annotated[
    int,
    typer.Option("--workers", min=1, help="Number of processes that run trials.", rich_help_panel=STORAGE),
]
UserTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="module:callable that returns the petra_optuna.Task of the study.",
        rich_help_panel=STORAGE,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder of the task's data.", rich_help_panel=STORAGE),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Safetensors file with the weights of the original model.",
        rich_help_panel=STORAGE,
    ),
]
Cache = Annotated[
    Path,
    typer.Option("--cache", help="Folder of cached models, shared between studies.", rich_help_panel=STORAGE),
]
StoredCache = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Folder of cached models (default: that of the study).", rich_help_panel=STORAGE
    ),
]
NewCache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of cached models, shared between studies (default: beside the database).",
        rich_help_panel=STORAGE,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.", rich_help_panel=STORAGE)]
Helper = Annotated[
    bool, typer.Option("--helper", help="End with the process that holds stdin's other end.", hidden=True)
]

ServingDevice = Annotated[
    str,
    typer.Option(
        help="Device that serves: host (this machine), armv7, raspberry-pi-3b+, i7-7567u, or a .json file.",
        rich_help_panel=LIMITS,
    ),
]
OtherServingDevice = Annotated[
    str | None,
    typer.Option(
        help="Device that serves, as of `petra tune` (default: host, this machine).", rich_help_panel=LIMITS
    ),
]
Cap = Annotated[
    bool,
    typer.Option(
        "--cap", help="Emulate a device of a file with the cores there are.", rich_help_panel=LIMITS
    ),
]
MaxBatch = Annotated[int, typer.Option(min=1, help="Largest batch that is served.", rich_help_panel=LIMITS)]
EnergyEstimator = Annotated[
    str | None,
    typer.Option(
        help="Estimate energy where nothing counts it: cpu-time:WATTS, watts of a busy core.",
        rich_help_panel=LIMITS,
    ),
]

OPTIONS = {
    "again": "--again",
    "bootstrap": "--bootstrap",
    "cap": "--cap",
    "cache": "--cache",
    "cache_dir": "--cache",
    "checkpoint": "--checkpoint",
    "budget.data_fraction": "--data-fraction",
    "data_root": "--data-root",
    "budget.epochs": "--epochs",
    "energy_estimator": "--energy-estimator",
    "limits.energy_j": "--max-energy-mj",
    "reduction_factor": "--reduction-factor",
    "region": "--region",
    "rungs.eta": "--rung-eta",
    "from_storage": "--from-storage",
    "from_study": "--from-study",
    "generations": "--generations",
    "inference_objective": "--inference-objective",
    "inferences": "--inferences",
    "limits.latency_ms": "--max-latency-ms",
    "rungs.levels": "--rung-levels",
    "limits.macs": "--max-macs",
    "max_batch": "--max-batch",
    "max_length": "--max-length",
    "rungs.min_epochs": "--rung-epochs",
    "rungs.min_fraction": "--rung-fraction",
    "min_fraction": "--min-fraction",
    "mode": "--mode",
    "name": "--study",
    "objectives": "--objective",
    "out": "--out",
    "limits.parameters": "--max-parameters",
    "limits.peak_memory_bytes": "--max-memory-mb",
    "population_size": "--population",
    "profile": "--device",
    "limits.quality_drop": "--max-quality-drop",
    "rungs": "--rungs",
    "seed": "--seed",
    "seeds": "--seeds",
    "sensitivity": "--sensitivity",
    "limits.size_bytes": "--max-size-mb",
    "stagnation": "--stagnation",
    "storage": "--storage",
    "targets": "--target",
    "task": "--task",
    "timeout_s": "--timeout",
    "train_precision": "--train-precision",
    "train_threads": "--train-threads",
    "tune_inference": "--tune-inference",
    "trials": "--trials",
    "workers": "--workers",
}
"""Python arguments of the library, as its errors quote them in backticks, and their options."""

FUNCTIONS = {
    "confirm": "`petra confirm`",
    "export_trial": "`petra export`",
    "front": "`petra front`",
    "optimize": "`petra run`",
    "resume": "`petra resume`",
}
"""Functions of the library and their commands."""


def refuse_for_tuning(context: typer.Context, *names: str) -> None:
    """Pass over no option that means nothing for a tuning study.

    Args:
        context: Context of the running command.
        names: Python names of such options.

    Raises:
        UserError: When one of them was given.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise UserError(f"--{name.replace('_', '-')} is not for a tuning study")


def as_options(text: str) -> str:
    """An error of the library in the words of the command: options for arguments, commands for functions."""
    return re.sub(r"`([\w.]+)`", _translated, text)


def _translated(quoted: re.Match[str]) -> str:
    return OPTIONS.get(quoted[1]) or FUNCTIONS.get(quoted[1]) or quoted[0]
