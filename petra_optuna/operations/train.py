"""Plain training, with distillation from the original as the recipe says."""

from __future__ import annotations

import copy
import dataclasses
from typing import Annotated, ClassVar

from optuna.distributions import IntDistribution
from torch import nn

from petra_optuna.operations.context import Context
from petra_optuna.operations.training import fit
from petra_optuna.pipeline import TRAINING_FIELDS, Applied, Kind, Operation


@dataclasses.dataclass(frozen=True)
class Train(Operation):
    """Train all weights for some epochs."""

    name: ClassVar[str] = "train"
    code: ClassVar[str] = "Tr"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = TRAINING_FIELDS
    from_initialisation: ClassVar[bool] = True

    epochs: Annotated[int, IntDistribution(1, 10)] = 3

    def apply(self, model: nn.Module, context: Context) -> Applied[nn.Module]:
        """Return a trained copy and what ``fit`` reports.

        Raises:
            TrainingDiverged: When a loss or a gradient is NaN or infinite.
        """
        trained = copy.deepcopy(model)
        report = fit(trained, context, self.epochs)
        return Applied(trained, report)
