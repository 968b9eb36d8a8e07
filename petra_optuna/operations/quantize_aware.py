"""Training under simulated INT8; the file is quantised by the static conversion that it implies."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, ClassVar

from torch import nn

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.quantization import FakeQuantization
from petra_optuna.operations.context import Context
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.saturation import LIMITS, weight_bits
from petra_optuna.operations.training import fit
from petra_optuna.pipeline import Applied, Operation
from petra_optuna.pipeline.nodes import QuantizeAwareNode


@dataclasses.dataclass(frozen=True)
class QuantizeAware(QuantizeAwareNode):
    """Train for some epochs with weights and activations rounded as the INT8 file will round them.

    The simulation is removed again, so the model stays plain and any node may follow. Ranges of the
    file are calibrated by its conversion, not taken from here. A pipeline cannot start from initialisation
    with it: ranges begin where the model is before the node, and follow too slowly from there.

    Example:
        >>> QuantizeAware(epochs=1).implies is QuantizeStatic
        True
    """

    implies: ClassVar[type[Operation] | None] = QuantizeStatic

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a trained plain copy; the report is that of ``fit`` with ``layers`` and ``weight_bits``.

        Raises:
            OperationFailed: When the model has no weight to quantise.
            TrainingDiverged: When a loss becomes NaN or infinite.
        """
        trained = copy.deepcopy(model).eval()
        batches = (inputs for inputs, _ in context.calibration_batches())
        simulation = FakeQuantization(trained, batches, LIMITS[weight_bits()])
        if not simulation.layers:
            raise OperationFailed("qat: the model computes with no weight to quantise")
        report: dict[str, Any] = fit(
            trained,
            context,
            self.epochs,
            only_float32="the file rounds in float32",
            snapshot=lambda _: simulation.plain_copy(),
        )
        simulation.remove()
        return Applied(trained, {**report, "layers": list(simulation.layers), "weight_bits": weight_bits()})
