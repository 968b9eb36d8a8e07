"""Search algorithms by name, and the grid of a space of parameters."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, GridSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.errors import UserError
from petra_optuna.samplers.grouped import GroupedSampler
from petra_optuna.samplers.petra import PetraSampler

Space = Mapping[str, BaseDistribution]
_FLOAT_POINTS = 5
"""Points of a continuous parameter on a grid."""
_GRID_POINT = "grid_id"
"""Key under which Optuna keeps the number of a trial's point on the grid."""
_STARTUP_TRIALS = 6
"""Random trials before a model of the objective decides: nested searches are short."""
_BETWEEN_GROUPS = 1_000_003
"""Distance of the seeds of two groups, more than a study has trials."""


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A search algorithm.

    Attributes:
        name: Name by which ``algorithm`` finds it.
        sampler: Makes its sampler from a seed and the space of parameters.
        early_stopping: Whether Hyperband ends weak trials at their rungs.
        exhaustive: Whether it visits each point of the space's grid once.
        counts_trials: Whether a trial's number is a part of its seed, so that a study that goes on repeats no
            draw with the same seed.
    """

    name: str
    sampler: Callable[[int, Space], BaseSampler]
    early_stopping: bool = False
    exhaustive: bool = False
    counts_trials: bool = False

    def seeded(self, seed: int, space: Space, trials: int) -> BaseSampler:
        """The sampler of a study that has so many trials already, which repeats none of their draws."""
        return self.sampler(seed if self.counts_trials else seed + trials, space)


def grid_points(distribution: BaseDistribution) -> list[Any]:
    """The values of a parameter on a grid: all whole numbers and choices, five of a continuous range."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        if distribution.log:
            count = int(math.log2(distribution.high / distribution.low)) + 1
            points = np.geomspace(distribution.low, distribution.high, count)
            return list(dict.fromkeys(round(point) for point in points))
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    count = _FLOAT_POINTS if step is None else round((high - low) / step) + 1
    spread = np.geomspace if distribution.log else np.linspace
    return [float(point) for point in spread(low, high, 1 if low == high else count)]


def grid_size(space: Space) -> int:
    """Number of points of the space's grid."""
    return math.prod(len(grid_points(distribution)) for distribution in space.values())


def _tpe(seed: int, space: Space) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=_STARTUP_TRIALS)


def _gp(seed: int, space: Space) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return GPSampler(seed=seed, n_startup_trials=_STARTUP_TRIALS)


def _random(seed: int, space: Space) -> BaseSampler:
    return RandomSampler(seed=seed)


class _Grid(GridSampler):
    """A grid of which a trial that runs a killed one again is no point."""

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End the study after the last point."""
        if _GRID_POINT in trial.system_attrs:
            super().after_trial(study, trial, state, values)


def _grid(seed: int, space: Space) -> BaseSampler:
    # Trials store the number of their point, and the seed decides the order: a run that goes on keeps it.
    return _Grid({name: grid_points(one) for name, one in space.items()}, seed=0)


def _petra(seed: int, space: Space) -> BaseSampler:
    return PetraSampler(None, seed=seed)


ALGORITHMS: Sequence[Algorithm] = (
    Algorithm("bohb", _tpe, early_stopping=True),
    Algorithm("hyperband", _random, early_stopping=True),
    Algorithm("tpe", _tpe),
    Algorithm("gp", _gp),
    Algorithm("random", _random),
    Algorithm("grid", _grid, exhaustive=True),
    Algorithm("petra", _petra, counts_trials=True),
)
"""BOHB is TPE with Hyperband (Falkner et al. 2018), the default of EDGETUNE."""


Groups = Mapping[str, Sequence[str]]
"""Names of algorithms -> the parameters that they draw."""


def sampler_of(name: str, groups: Groups, space: Space, seed: int, trials: int = 0) -> BaseSampler:
    """The sampler of an algorithm, which leaves groups of parameters to other ones.

    Args:
        name: Name of the algorithm.
        groups: Other algorithms and their parameters, all of which are in the space.
        space: All parameters.
        seed: Seed of all of them; each draws by a seed of its own, or their draws would be the same.
        trials: Trials that the study has already.

    Raises:
        UserError: When an algorithm is unknown, two draw one parameter, or a grid is to draw a group: it ends
            the search after its own points.
    """
    if whole := [other for other in groups if algorithm(other).exhaustive]:
        raise UserError(f"algorithm {whole[0]!r} visits all points of a space and cannot draw a group")
    grouped = [parameter for names in groups.values() for parameter in names]
    if twice := sorted({one for one in grouped if grouped.count(one) > 1}):
        raise UserError(f"two algorithms are to draw parameter {twice[0]!r}; name it once")
    rest = {parameter: one for parameter, one in space.items() if parameter not in grouped}
    default = algorithm(name).seeded(seed, rest, trials)
    if not grouped:
        return default
    return GroupedSampler(
        default,
        {
            tuple(names): algorithm(other).seeded(
                seed + _BETWEEN_GROUPS * place, {one: space[one] for one in names}, trials
            )
            for place, (other, names) in enumerate(groups.items(), start=1)
            if names
        },
    )


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        UserError: When there is none.
    """
    for known in ALGORITHMS:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in ALGORITHMS)
    raise UserError(f"unknown search algorithm {name!r}; there are {names}")
