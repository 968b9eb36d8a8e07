"""Steps of every node that changes shapes: sizes for the report, batch norms measured again."""

from __future__ import annotations

import dataclasses

from torch import nn

from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import Inputs
from petra_optuna.operations.context import Context


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
