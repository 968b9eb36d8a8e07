"""Parzen estimators of conditional parameters, and the draws that TPE makes from good and bad ones.

Bergstra et al. 2011; the joint kernels over several parameters follow Falkner et al. 2018. A set of
parameters is a vector: numbers by their coordinate in the range, in [0, 1], categories by their index, and
NaN where a parameter does not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from petra_optuna.aliases import Array
from petra_optuna.evolution.values import from_unit, reflect, to_unit

WIDTH = 0.2
"""Standard deviation of the kernels of numbers, as a share of the range, where there is one observation."""
NARROWEST = 0.02
"""Least standard deviation of a kernel."""


def to_coordinate(distribution: BaseDistribution, value: Any) -> float:
    """A value as a coordinate of a vector; inverse of ``from_coordinate``."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.to_internal_repr(value)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return 0.0 if distribution.single() else min(max(to_unit(distribution, value), 0.0), 1.0)


def from_coordinate(distribution: BaseDistribution, coordinate: float) -> Any:
    """The value at a coordinate of a vector."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(coordinate)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low if distribution.single() else from_unit(distribution, coordinate)


@dataclasses.dataclass(frozen=True)
class Density:
    """A mixture of one kernel about each observation and one uniform over everything, of equal weights.

    Attributes:
        choices: Number of categories of each parameter, shape (d,); 0 for numbers.
        observed: Vectors, shape (n, d).
    """

    choices: npt.NDArray[np.int64]
    observed: Array

    @classmethod
    def of(cls, distributions: Sequence[BaseDistribution], observed: Array) -> Density:
        """Density of observed vectors, shape (n, d), of parameters with these distributions."""
        counts = [
            len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 0
            for distribution in distributions
        ]
        return cls(np.array(counts, dtype=np.int64), observed.reshape(-1, len(counts)))

    @property
    def width(self) -> float:
        """Standard deviation of the kernels of numbers (Scott's rule)."""
        count, size = self.observed.shape
        return float(max(WIDTH * max(count, 1) ** (-1 / (size + 4)), NARROWEST))

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Draw vectors, shape (count, d); what does not count in a kernel's centre is drawn uniformly."""
        size = len(self.choices)
        uniform = rng.random((count, size))
        number = self.choices == 0
        drawn = np.where(number, uniform, np.floor(uniform * np.maximum(self.choices, 1)))
        centres = rng.integers(len(self.observed) + 1, size=count)
        # The last kernel is the uniform one: it has no centre.
        centre = np.vstack([self.observed, np.full((1, size), np.nan)])[centres]
        near = np.where(number, reflect(centre + self.width * rng.standard_normal((count, size))), centre)
        kept = rng.random((count, size)) >= np.where(number, 0.0, self._leak())
        return np.asarray(np.where(np.isnan(centre) | ~kept, drawn, near))

    def log(self, vectors: Array) -> Array:
        """Logarithm of the density at vectors, shape (c, d), over the parameters that count there: (c,)."""
        total = np.zeros((len(vectors), len(self.observed) + 1))
        for column, choices in enumerate(self.choices):
            points, centres = vectors[:, column, None], self.observed[None, :, column]
            kernel = self._category(points, centres, choices) if choices else self._number(points, centres)
            # Against the uniform density: what the centre does not have counts as drawn uniformly.
            total[:, :-1] += np.where(np.isnan(points) | np.isnan(centres), 0.0, np.log(kernel))
        peak = total.max(axis=1, keepdims=True)
        return np.asarray(peak[:, 0] + np.log(np.exp(total - peak).mean(axis=1)))

    def _leak(self) -> float:
        """Weight of the uniform part in the kernel of a category."""
        return 1 / (len(self.observed) + 1)

    def _category(self, points: Array, centres: Array, choices: int) -> Array:
        leak = self._leak()
        return np.asarray(leak + (1 - leak) * choices * (points == centres))

    def _number(self, points: Array, centres: Array) -> Array:
        """Gaussian folded at both ends of [0, 1], as it is drawn."""
        kernel = np.zeros(np.broadcast(points, centres).shape)
        for image in (centres, -centres, 2 - centres):
            kernel += np.exp(-0.5 * ((points - image) / self.width) ** 2)
        return np.asarray(np.maximum(kernel / (self.width * np.sqrt(2 * np.pi)), np.finfo(float).tiny))


@dataclasses.dataclass(frozen=True)
class Estimator:
    """Scores vectors by where good observations are dense and bad ones are not.

    Attributes:
        good: Density of the good observations.
        bad: Density of the other observations.
    """

    good: Density
    bad: Density

    def score(self, vectors: Array) -> Array:
        """Logarithm of good over bad density, shape (c,): the larger, the more promising."""
        return self.good.log(vectors) - self.bad.log(vectors)
