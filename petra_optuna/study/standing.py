"""Where the finished trials of a study stand: on its front, tied with it, or below the region of interest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial

from petra_optuna.evolution import tied_front
from petra_optuna.samplers import MeasuredValues


@dataclasses.dataclass(frozen=True)
class Standing:
    """The front of a study, and the trials that would be on it but for noise or the region.

    Attributes:
        measured: Values of the trials by all measurements of their shapes.
        front: The trials on the front.
        tied: Number of a trial on the front -> the trials that it stands for, because what was measured does
            not tell that they are better in any value.
        below: Trials outside the region of interest that no other trial dominates.
        outside: Number of all trials outside the region.
    """

    measured: MeasuredValues
    front: tuple[FrozenTrial, ...]
    tied: Mapping[int, tuple[FrozenTrial, ...]]
    below: tuple[FrozenTrial, ...]
    outside: int

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], measured: MeasuredValues, limit: float | None) -> Standing:
        """Where trials stand among each other.

        Args:
            trials: Feasible trials.
            measured: Their values.
            limit: The worst quality, of the first objective, in the region of interest; None for no region.
        """
        points = [measured.point(trial) for trial in trials]
        rows = [row for row, trial in enumerate(trials) if limit is None or measured.reaches(trial, limit)]
        inside = [trials[row] for row in rows]
        among_inside = tied_front([points[row] for row in rows])
        numbers = {trial.number for trial in inside}
        among_all = tied_front(points) if len(inside) < len(trials) else {}
        return cls(
            measured=measured,
            front=tuple(inside[row] for row in among_inside),
            tied={
                inside[row].number: tuple(inside[other] for other in others)
                for row, others in among_inside.items()
            },
            below=tuple(trials[row] for row in among_all if trials[row].number not in numbers),
            outside=len(trials) - len(inside),
        )
