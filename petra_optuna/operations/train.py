"""Plain training, with distillation from the original as the recipe says."""

from __future__ import annotations

import dataclasses

from torch import nn

from petra_optuna.nn.copying import private_copy
from petra_optuna.operations.context import Context
from petra_optuna.operations.training import fit
from petra_optuna.pipeline import Applied
from petra_optuna.pipeline.nodes import TrainNode


@dataclasses.dataclass(frozen=True)
class Train(TrainNode):
    """Train all weights for some epochs.

    Example:
        >>> Pipeline((Train(epochs=2),), Recipe(lr=1e-3)).notation
        'Tr'
    """

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a trained copy and what ``fit`` reports.

        Raises:
            TrainingDiverged: When a loss or a gradient is NaN or infinite.
        """
        trained = private_copy(model)
        report = fit(trained, context, self.epochs)
        return Applied(trained, report)
