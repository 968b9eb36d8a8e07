"""What a pipeline's structural nodes alone say about the file, before any training.

The size is predicted by counting the weights that the file must store. A prediction never becomes a value of
a trial; it stops a trial where it is certain to break the limit on size.
The nodes are applied to the task's model also where pipelines start from initialisation: ranks and scores
of weights that were never trained say nothing about those that training leads to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from petra_optuna.errors import OperationFailed, foreign_errors_as
from petra_optuna.evaluation.budget import Budget
from petra_optuna.evaluation.keys import node_seed, prefix_keys
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import Inputs, take
from petra_optuna.nn.stored_values import fewest_stored_values
from petra_optuna.operations import Context
from petra_optuna.pipeline import Operation, Pipeline
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class Preview:
    """Predictions for the file of a pipeline.

    Attributes:
        parameters: Parameters of the model after the structural nodes.
        macs: Multiply-accumulates for one sample.
        size_bytes: Fewest bytes of the file; those of any file of the pipeline where ``certain``.
        certain: Whether training cannot change the shapes: no node whose result follows the weights
            comes after one that trains them.
    """

    parameters: int
    macs: int
    size_bytes: float
    certain: bool


def preview(
    pipeline: Pipeline,
    task: Task,
    base_key: str,
    budget: Budget,
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
        size_bytes=fewest_bytes(model, task.example, pipeline.conversion),
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


def fewest_bytes(model: nn.Module, example: Inputs, conversion: Operation | None) -> float:
    """The fewest bytes that the file of a model of this shape can take: those of the weights that it stores.

    Args:
        model: Model before the conversion.
        example: Batch of any size.
        conversion: Conversion of the pipeline; None for FP32.
    """
    stored = min((weight.element_size() for weight in model.parameters()), default=4)
    weight_bytes = min(conversion.weight_bytes if conversion else 4.0, stored)
    return weight_bytes * fewest_stored_values(model, take(example, 1))


def _is_certain(pipeline: Pipeline) -> bool:
    trained = False
    for node in pipeline.body:
        if trained and node.shape_follows_weights:
            return False
        trained = trained or node.kind == "training"
    return True
