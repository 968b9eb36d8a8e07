"""Bounds on what a trial may take or must reach, such as ``quality>=0.9``."""

from __future__ import annotations

import dataclasses
import math
import re

from petra_optuna.edgetune.objective import TrialFigures
from petra_optuna.errors import MeasurementFailed, UserError

_FIGURES = tuple(field.name for field in dataclasses.fields(TrialFigures))
_LIMIT = re.compile(r"(?P<figure>\w+)\s*(?P<relation><=|>=)\s*(?P<bound>\S+)")
_ENERGIES = ("train_j", "inference_j")
_OF_SERVING = ("inference_s", "inference_j")


@dataclasses.dataclass(frozen=True)
class FigureLimit:
    """A bound on one figure of a trial.

    Attributes:
        figure: Name of the figure, a field of ``TrialFigures``.
        relation: ``<=`` or ``>=``.
        bound: The bound, which a trial may reach.

    Example:
        >>> limit = FigureLimit.parse("inference_s<=2")
        >>> limit.excess(TrialFigures(quality=0.9, train_s=12.0, inference_s=3.0))
        1.0
    """

    figure: str
    relation: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> FigureLimit:
        """Read ``NAME<=VALUE`` or ``NAME>=VALUE``.

        Raises:
            UserError: When the text is neither, or there is no such figure.
        """
        match = _LIMIT.fullmatch(text.strip())
        try:
            bound = float(match["bound"]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            raise UserError(f"a limit is NAME<=VALUE or NAME>=VALUE, for example quality>=0.9; got {text!r}")
        if match["figure"] not in _FIGURES:
            raise UserError(f"limit {text!r} bounds no figure of a trial; there are {', '.join(_FIGURES)}")
        return cls(match["figure"], match["relation"], bound)

    @property
    def needs_energy(self) -> bool:
        """Whether the figure is an energy."""
        return self.figure in _ENERGIES

    @property
    def needs_serving(self) -> bool:
        """Whether the figure is one of serving."""
        return self.figure in _OF_SERVING

    def excess(self, figures: TrialFigures) -> float:
        """By how much a trial is beyond the bound, in the figure's unit; at most 0 where it is kept.

        Raises:
            MeasurementFailed: When the figure was not measured.
        """
        value = getattr(figures, self.figure)
        if value is None:
            raise MeasurementFailed(f"limit {self} bounds {self.figure}, which was not measured")
        beyond = float(value) - self.bound
        return beyond if self.relation == "<=" else -beyond

    def __str__(self) -> str:
        """The text that ``parse`` reads."""
        return f"{self.figure}{self.relation}{self.bound:.12g}"
