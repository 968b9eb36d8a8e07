"""Steps of every node that changes shapes: sizes for the report, batch norms measured again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.time_limit import time_limit
from petra_optuna.operations.context import Context
from petra_optuna.pipeline import Applied, Operation

Node = TypeVar("Node", bound=Operation)
Apply = Callable[[Node, nn.Module, Context], Applied[nn.Module]]


def limited(apply: Apply[Node]) -> Apply[Node]:
    """Let ``apply`` of a structural node fail once its search has taken ``context.search_s``."""

    @functools.wraps(apply)
    def within_the_limit(node: Node, model: nn.Module, context: Context) -> Applied[nn.Module]:
        with time_limit(context.search_s):
            return apply(node, model, context)

    return within_the_limit


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Size of a model.

    Attributes:
        parameters: Number of its weights.
        macs: Multiply-accumulates of a forward pass of the example.
    """

    parameters: int
    macs: int

    @classmethod
    def of(cls, model: nn.Module, example: Inputs) -> ModelSize:
        """Count; one forward pass."""
        return cls(count_parameters(model), count_macs(model, example))


def size_report(before: ModelSize, after: ModelSize) -> dict[str, int]:
    """The counts before and after, under the keys that every structural node's report has."""
    return {
        "parameters_before": before.parameters,
        "parameters_after": after.parameters,
        "macs_before": before.macs,
        "macs_after": after.macs,
    }


def remeasure_batch_norms(model: nn.Module, context: Context) -> int:
    """Measure statistics of batch norms again on the calibration split, in place; how many there are."""
    batches = (inputs for inputs, _ in context.calibration_batches())
    return reestimate_batch_norm(model, batches, context.task.fixed_norms)
