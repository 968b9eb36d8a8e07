"""What a tuning study minimises or maximises, given what a trial took and reached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from petra_optuna.aliases import Direction
from petra_optuna.errors import MeasurementFailed, UserError
from petra_optuna.tasks import Metric


@dataclasses.dataclass(frozen=True)
class TrialFigures:
    """What a trial took and reached so far.

    Attributes:
        quality: The task's metric on the selection split.
        train_s: Seconds of training.
        inference_s: Seconds of serving ``inferences`` samples as recommended; None without a recommendation.
        train_j: Joules of training; None where nothing counts them.
        inference_j: Joules of serving them; None where nothing counts them.

    Example:
        >>> TrialFigures(quality=0.9, train_s=12.0, inference_s=3.0).train_s
        12.0
    """

    quality: float
    train_s: float
    inference_s: float | None = None
    train_j: float | None = None
    inference_j: float | None = None


@dataclasses.dataclass(frozen=True)
class TuningObjective:
    """A value of a trial with its direction.

    Attributes:
        name: Name under which the study shows it.
        direction: Whether less or more of it is better.
        function: Maps what a trial took and reached to the value.
        needs_energy: Whether it needs energies.

    Example:
        >>> seconds = TuningObjective("seconds", "minimize", lambda figures: figures.train_s)
        >>> seconds.function(TrialFigures(quality=0.9, train_s=12.0))
        12.0
    """

    name: str
    direction: Direction
    function: Callable[[TrialFigures], float]
    needs_energy: bool = False


RUNTIME, ENERGY, QUALITY = "runtime", "energy", "quality"
TUNING_OBJECTIVES = (RUNTIME, ENERGY, QUALITY)


def tuning_objective(given: str | TuningObjective, metric: Metric) -> TuningObjective:
    """The objective of that name; one of the user's is returned as it is.

    ``runtime`` is (training time + inference time) / quality and ``energy`` the same with energies, both to
    be minimised (EDGETUNE, section 4). Without a recommendation the part of inference is left out.
    ``quality`` is the task's metric alone.

    Args:
        given: ``runtime``, ``energy`` or ``quality``, or an objective.
        metric: The task's metric.

    Raises:
        UserError: When there is none of that name, the metric cannot be divided by, or one of the user's has
            the name of a built-in one.
    """
    if isinstance(given, TuningObjective):
        if given.name in (*TUNING_OBJECTIVES, metric.name):
            raise UserError(f"{given.name!r} is the name of a built-in objective; give yours another one")
        return given
    if given == QUALITY:
        return TuningObjective(metric.name, metric.direction, lambda figures: figures.quality)
    if given not in TUNING_OBJECTIVES:
        names = ", ".join(TUNING_OBJECTIVES)
        raise UserError(f"unknown tuning objective {given!r}; there are {names}, or give a TuningObjective")
    if metric.direction != "maximize":
        raise UserError(
            f"objective {given!r} divides by the metric, and less of {metric.name} is better; "
            f"take {QUALITY!r} or give a TuningObjective"
        )
    if given == RUNTIME:
        return TuningObjective(RUNTIME, "minimize", _runtime)
    return TuningObjective(ENERGY, "minimize", _energy, needs_energy=True)


def _runtime(figures: TrialFigures) -> float:
    return (figures.train_s + (figures.inference_s or 0.0)) / _positive(figures.quality)


def _energy(figures: TrialFigures) -> float:
    if figures.train_j is None:
        raise MeasurementFailed("the energy of training was not counted")
    return (figures.train_j + (figures.inference_j or 0.0)) / _positive(figures.quality)


def _positive(quality: float) -> float:
    """A quality that can be divided by: one of 0 is as bad as can be told."""
    return max(quality, 1e-9)
