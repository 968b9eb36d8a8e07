"""The end of a run once a file is good enough."""

from __future__ import annotations

import dataclasses
from typing import Final

import optuna

from petra_optuna.aliases import Direction
from petra_optuna.edgetune.record import record_of
from petra_optuna.samplers import StopRule

TARGET: Final = "petra:target_quality"
"""Key of the target of a study's last run among its user attributes; None where it had none."""


@dataclasses.dataclass(frozen=True)
class TargetQuality(StopRule):
    """Stops a tuning study once a file reaches a metric on the selection split.

    Attributes:
        target: Value of the metric.
        direction: Whether less or more of it is better.
    """

    target: float
    direction: Direction

    def is_reached(self, study: optuna.Study) -> bool:
        """Whether the file of any trial is good enough."""
        records = [record_of(trial) for trial in study.get_trials(deepcopy=False)]
        qualities = [record.quality for record in records if record and record.quality is not None]
        if self.direction == "maximize":
            return any(quality >= self.target for quality in qualities)
        return any(quality <= self.target for quality in qualities)
