"""Probabilities of the mutations, which follow their recent success."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, get_args

import numpy as np

from petra_optuna.aliases import Array
from petra_optuna.errors import UserError

RatesMode = Literal["uniform", "matching", "thompson"]

CELLS = 1000
"""Parts of [0, 1] over which Beta posteriors are integrated."""


@dataclasses.dataclass(frozen=True)
class OperatorRates:
    """Success history of the operators, and the probabilities that follow from it.

    Modes: ``uniform`` ignores the history; ``matching`` (PETRA, and probability matching since
    Goldberg 1990) makes a probability proportional to the mean credit; ``thompson`` draws one mean
    per operator from its Beta posterior and takes the largest.

    Attributes:
        names: Names of the operators.
        history: (operator, credit in [0, 1]) from old to new, at most ``window`` entries.
        mode: Rule that turns the history into probabilities: ``uniform``, ``matching`` or ``thompson``.
        window: Number of entries that count; older ones are forgotten, since what helps changes.
        floor: Share of the probability that is spread evenly: no operator falls below ``floor / n``.

    Raises:
        UserError: On construction, when the mode is unknown, the floor is outside [0, 1] or the window
            is below 1.
    """

    names: tuple[str, ...]
    history: tuple[tuple[str, float], ...] = ()
    mode: RatesMode = "matching"
    window: int = 50
    floor: float = 0.2

    def __post_init__(self) -> None:
        """Check the settings and forget what is older than the window."""
        if self.mode not in get_args(RatesMode):
            raise UserError(f"`mode` must be one of {', '.join(get_args(RatesMode))}, got {self.mode!r}")
        if not 0 <= self.floor <= 1:
            raise UserError(f"`floor` must be in [0, 1], got {self.floor}")
        if self.window < 1:
            raise UserError(f"`window` must be at least 1, got {self.window}")
        object.__setattr__(self, "history", self.history[-self.window :])

    def probabilities(self, rng: np.random.Generator) -> dict[str, float]:
        """Probability of each operator; they sum to 1. Only ``thompson`` uses the generator."""
        return self._apply_floor(self._draw_shares(rng) if self.mode == "thompson" else self._shares)

    def expected(self) -> dict[str, float]:
        """Probability of each operator before anything is drawn; they sum to 1.

        They are those of ``probabilities``, except for ``thompson``: there one draw is replaced by the
        probability that an operator's mean is the largest, integrated over the Beta posteriors.
        """
        return self._apply_floor(self._largest_shares() if self.mode == "thompson" else self._shares)

    def choose(self, rng: np.random.Generator) -> str:
        """Draw an operator by its probability."""
        ends = self._upper_ends(rng) if self.mode == "thompson" else self._fixed_ends
        return self.names[int(np.searchsorted(ends, rng.random(), side="right"))]

    @functools.cached_property
    def use_counts(self) -> Array:
        """Number of uses of each operator, shape (n,)."""
        return np.array([sum(used == name for used, _ in self.history) for name in self.names], float)

    @functools.cached_property
    def credit(self) -> Array:
        """Sum of the credit of each operator, shape (n,)."""
        return np.array([sum(credit for used, credit in self.history if used == name) for name in self.names])

    def _upper_ends(self, rng: np.random.Generator) -> Array:
        """Upper end of each operator's part of [0, 1], shape (n,)."""
        ends = np.cumsum(list(self.probabilities(rng).values()))
        return np.asarray(ends / ends[-1])

    @functools.cached_property
    def _fixed_ends(self) -> Array:
        return self._upper_ends(np.random.default_rng())

    def _apply_floor(self, preferred: Array) -> dict[str, float]:
        count = len(self.names)
        return {
            name: self.floor / count + (1 - self.floor) * float(share)
            for name, share in zip(self.names, preferred, strict=True)
        }

    def _posteriors(self) -> tuple[Array, Array]:
        """Parameters of the Beta posterior of each operator's mean credit, after a uniform prior."""
        return 1 + self.credit, 1 + self.use_counts - self.credit

    def _draw_shares(self, rng: np.random.Generator) -> Array:
        means = rng.beta(*self._posteriors())
        return np.asarray(np.arange(len(self.names)) == int(np.argmax(means)), dtype=float)

    @functools.cached_property
    def _shares(self) -> Array:
        if self.mode == "uniform":
            return np.full(len(self.names), 1 / len(self.names))
        # One imagined success in two uses each: an operator not tried lately counts as an even bet.
        means = (1 + self.credit) / (2 + self.use_counts)
        return np.asarray(means / means.sum(), dtype=float)

    def _largest_shares(self) -> Array:
        """Probability that each mean is the largest: its density times the shares of the others below it."""
        successes, failures = (column[:, None] for column in self._posteriors())
        middles = (np.arange(CELLS) + 0.5) / CELLS
        logarithm = (successes - 1) * np.log(middles) + (failures - 1) * np.log1p(-middles)
        mass = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
        mass /= mass.sum(axis=1, keepdims=True)
        below = np.cumsum(mass, axis=1) - mass / 2
        wins = [
            np.sum(mass[row] * np.prod(np.delete(below, row, axis=0), axis=0)) for row in range(len(mass))
        ]
        return np.asarray(wins / np.sum(wins), dtype=float)
