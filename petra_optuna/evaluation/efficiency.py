"""What is known of a finished pipeline beside the task's quality; any of it may be an objective."""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import nn

from petra_optuna.errors import UserError
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import take
from petra_optuna.pipeline import Pipeline
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class EfficiencyMetric:
    """A number of a file, or of how it came about.

    Attributes:
        name: In ``Evaluation.values``; its unit is in it.
        direction: What is better.
        by_ratio: Whether values count by their ratio to the original's, not by their difference.
        heading: Name of a column, with the unit that the column is in.
        scale: From the value's unit to the column's.
        text: What it is.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    by_ratio: bool
    heading: str
    scale: float
    text: str


EFFICIENCY_METRICS = (
    EfficiencyMetric("latency_ms", "minimize", True, "ms", 1.0, "one call at the latency batch"),
    EfficiencyMetric(
        "throughput_per_s", "maximize", True, "per s", 1.0, "samples, at the best throughput batch"
    ),
    EfficiencyMetric("size_bytes", "minimize", True, "kB", 1e-3, "of the file"),
    EfficiencyMetric(
        "peak_memory_bytes", "minimize", True, "peak MB", 1e-6, "added by loading and running the file"
    ),
    EfficiencyMetric("energy_j", "minimize", True, "mJ", 1e3, "of one sample, where the machine counts it"),
    EfficiencyMetric(
        "train_s", "minimize", False, "train s", 1.0, "of all training nodes, cached ones included"
    ),
    EfficiencyMetric("parameters", "minimize", True, "k params", 1e-3, "of the model before conversion"),
    EfficiencyMetric("macs", "minimize", True, "M MACs", 1e-6, "multiply-accumulates for one sample"),
    EfficiencyMetric("depth", "minimize", False, "nodes", 1.0, "of the pipeline: its structural complexity"),
)
DEFAULT_OBJECTIVES = ("latency_ms", "throughput_per_s", "size_bytes")


def efficiency_metric(name: str) -> EfficiencyMetric:
    """The quantity of that name.

    Raises:
        UserError: When there is none.
    """
    for known in EFFICIENCY_METRICS:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in EFFICIENCY_METRICS)
    raise UserError(f"unknown objective {name!r}; beside the task's metric there are {names}")


def counted(model: nn.Module, pipeline: Pipeline, task: Task) -> dict[str, float]:
    """The values that need no measuring: ``parameters``, ``macs``, ``depth``."""
    return {
        "parameters": float(count_parameters(model)),
        "macs": float(count_macs(model, take(task.example, 1))),
        "depth": float(len(pipeline.nodes)),
    }
