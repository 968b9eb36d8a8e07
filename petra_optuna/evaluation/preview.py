"""What a pipeline's structural nodes alone say about the file, before any training.

The size is predicted by counting, the latency where a file of the same shape has been measured
before. A prediction never becomes a value of a trial. The predicted size stops a trial where it is certain
to break a hard limit; the predicted latency is reported only, since it depends on what ran before.
The nodes are applied to the task's model also where pipelines start from initialisation: ranks and scores
of weights that were never trained say nothing about those that training leads to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from petra_optuna.errors import OperationFailed, foreign_errors_as
from petra_optuna.evaluation.budget import Budget
from petra_optuna.evaluation.keys import node_seed, prefix_keys
from petra_optuna.files import write_cached
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import take
from petra_optuna.operations import Context
from petra_optuna.pipeline import Operation, Pipeline
from petra_optuna.tasks import Task

_BYTES_PER_LAYER = 200
"""Lower bound of what a layer adds to a file: its node, its names, its bias. Batch norms fold away."""


@dataclasses.dataclass(frozen=True)
class Preview:
    """Predictions for the file of a pipeline.

    Attributes:
        parameters: Parameters of the model after the structural nodes.
        macs: Multiply-accumulates for one sample.
        size_bytes: Bytes of the file by counting; a lower bound where ``certain``.
        latency_ms: Latency of a file of the same shape, or None where none was measured.
        certain: Whether training cannot change the shapes: no node whose result follows the weights
            comes after one that trains them.
    """

    parameters: int
    macs: int
    size_bytes: float
    latency_ms: float | None
    certain: bool


@dataclasses.dataclass(frozen=True)
class ShapeHistory:
    """Latencies of measured shapes against one baseline.

    Attributes:
        folder: Folder with one small file for each shape.
        scope: Name of what a latency depends on besides the shape: baseline and device profile.
    """

    folder: Path
    scope: str

    def get(self, model: nn.Module, conversion: Operation | None) -> float | None:
        """Latency in ms that a file of this shape had, or None."""
        try:
            text = self._path(model, conversion).read_text(encoding="utf-8")
            return float(json.loads(text)["latency_ms"])
        except (FileNotFoundError, PermissionError, ValueError, KeyError):
            return None

    def put(self, model: nn.Module, conversion: Operation | None, latency_ms: float) -> None:
        """Remember a measured latency.

        Raises:
            StudyError: When the folder cannot be written.
        """
        text = json.dumps({"latency_ms": latency_ms})
        write_cached(self._path(model, conversion), text.encode())

    def _path(self, model: nn.Module, conversion: Operation | None) -> Path:
        shapes = [(name, list(value.shape)) for name, value in model.state_dict().items()]
        parts = [self.scope, shapes, conversion.to_dict() if conversion else None]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest}.shape"


def preview(
    pipeline: Pipeline,
    task: Task,
    base_key: str,
    budget: Budget,
    history: ShapeHistory | None = None,
    *,
    start: nn.Module | None = None,
    applied: int = 0,
) -> Preview:
    """Apply the structural nodes alone and count.

    Args:
        pipeline: Pipeline in canonical form.
        task: Task whose model the nodes are applied to.
        base_key: Cache key of the network that the pipeline starts from; it seeds the nodes.
        budget: Budget of training, which the keys of the nodes depend on.
        history: Measured shapes for the latency; None predicts none.
        start: Task's model after the first ``applied`` nodes, none of which trains, where it is at hand.
        applied: Number of these nodes; 0 without ``start``.

    Raises:
        TrialError: With the reason, when a node fails.
    """
    keys = prefix_keys(base_key, pipeline, budget)
    model = apply_structure(task.model if start is None else start, pipeline, keys, task, first=applied)
    return Preview(
        parameters=count_parameters(model),
        macs=count_macs(model, take(task.example, 1)),
        size_bytes=predicted_bytes(model, pipeline.conversion),
        latency_ms=history.get(model, pipeline.conversion) if history else None,
        certain=_is_certain(pipeline),
    )


def apply_structure(
    model: nn.Module, pipeline: Pipeline, keys: Sequence[str], task: Task, first: int = 0
) -> nn.Module:
    """Apply the nodes that change shapes, from the node at index ``first`` on, without any training.

    Args:
        model: Model before these nodes; not changed.
        pipeline: Pipeline whose body holds them.
        keys: Key of each node of the body (``keys.prefix_keys``), which seeds it.
        task: Task whose data the nodes read.
        first: Index of the first node.

    Raises:
        TrialError: With the reason, when a node fails.
    """
    for node, key in zip(pipeline.body[first:], keys[first:], strict=True):
        if node.kind == "structure":
            context = Context(task=task, recipe=pipeline.recipe, seed=node_seed(key), epochs=0)
            with foreign_errors_as(OperationFailed, node.name):
                model = node.apply(model, context).model
    return model


def predicted_bytes(model: nn.Module, conversion: Operation | None) -> float:
    """The fewest bytes that the file of a model of this shape can take."""
    weights = [weight.numel() for weight in model.parameters() if weight.dim() > 1]
    weight_bytes = conversion.weight_bytes if conversion else 4.0
    return weight_bytes * sum(weights) + _BYTES_PER_LAYER * len(weights)


def _is_certain(pipeline: Pipeline) -> bool:
    trained = False
    for node in pipeline.body:
        if trained and node.shape_follows_weights:
            return False
        trained = trained or node.kind == "training"
    return True
