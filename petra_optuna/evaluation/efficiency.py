"""Values of a finished pipeline beside the task's quality; any of them may be an objective."""

from __future__ import annotations

import dataclasses

from torch import nn

from petra_optuna.aliases import Direction
from petra_optuna.errors import UserError
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import take
from petra_optuna.pipeline import Pipeline
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class EfficiencyMetric:
    """A number that is known of a file or of its making, and how tables show it.

    Attributes:
        name: Key in ``Evaluation.values``; it holds the unit.
        direction: Whether less or more is better.
        by_ratio: Whether values are compared with the baseline's by ratio, not by difference.
        heading: Heading of its column in tables, with the column's unit.
        scale: Factor from the value's unit to the column's.
        description: What the value is, for people.
    """

    name: str
    direction: Direction
    by_ratio: bool
    heading: str
    scale: float
    description: str


EFFICIENCY_METRICS = (
    EfficiencyMetric("latency_ms", "minimize", True, "ms", 1.0, "time of a call at the latency batch"),
    EfficiencyMetric(
        "throughput_per_s", "maximize", True, "per s", 1.0, "samples in a second at the best throughput batch"
    ),
    EfficiencyMetric("size_bytes", "minimize", True, "kB", 1e-3, "bytes of the file"),
    EfficiencyMetric(
        "peak_memory_bytes",
        "minimize",
        True,
        "peak MB",
        1e-6,
        "memory that loading and running a file adds",
    ),
    EfficiencyMetric("energy_j", "minimize", True, "mJ", 1e3, "energy of a sample, where it can be read"),
    EfficiencyMetric(
        "train_s", "minimize", False, "train s", 1.0, "time of all training nodes, cached ones included"
    ),
    EfficiencyMetric("parameters", "minimize", True, "k params", 1e-3, "weights before the conversion"),
    EfficiencyMetric("macs", "minimize", True, "M MACs", 1e-6, "multiply-accumulates for one sample"),
    EfficiencyMetric("depth", "minimize", False, "nodes", 1.0, "nodes of the pipeline: its complexity"),
)
DEFAULT_OBJECTIVES = ("latency_ms", "throughput_per_s", "size_bytes")


def efficiency_metric(name: str) -> EfficiencyMetric:
    """The metric that has this name.

    Raises:
        UserError: When there is none.
    """
    for metric in EFFICIENCY_METRICS:
        if metric.name == name:
            return metric
    names = ", ".join(metric.name for metric in EFFICIENCY_METRICS)
    raise UserError(f"unknown objective {name!r}; beside the task's metric there are {names}")


def count_values(model: nn.Module, pipeline: Pipeline, task: Task) -> dict[str, float]:
    """Count the values that need no measuring: ``parameters``, ``macs``, ``depth``.

    Args:
        model: Model before the conversion.
        pipeline: Pipeline that led to it.
        task: Task whose example gives the shape of one sample.
    """
    return {
        "parameters": float(count_parameters(model)),
        "macs": float(count_macs(model, take(task.example, 1))),
        "depth": float(len(pipeline.nodes)),
    }
