"""How often each mutation is tried: its probability follows its recent success."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, get_args

import numpy as np

from petra_optuna.errors import UserError
from petra_optuna.evolution.front import Array

RatesMode = Literal["uniform", "matching", "thompson"]


@dataclasses.dataclass(frozen=True)
class OperatorRates:
    """Success history of the operators, and the probabilities that follow from it.

    Modes: ``uniform`` ignores the history; ``matching`` (PETRA, and probability matching since
    Goldberg 1990) makes a probability proportional to the mean credit; ``thompson`` draws one mean
    per operator from its Beta posterior and takes the largest.

    Attributes:
        names: The operators.
        history: (operator, credit in [0, 1]) from old to new, at most ``window`` entries.
        mode: See above.
        window: How many entries count; older ones are forgotten, since what helps changes.
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
            raise UserError(f"rates must be one of {', '.join(get_args(RatesMode))}, got {self.mode!r}")
        if not 0 <= self.floor <= 1 or self.window < 1:
            raise UserError(
                f"rates need a floor in [0, 1] and a window >= 1, got {self.floor} and {self.window}"
            )
        object.__setattr__(self, "history", self.history[-self.window :])

    def record(self, name: str, credit: float) -> OperatorRates:
        """The rates after one more use of an operator."""
        return dataclasses.replace(self, history=(*self.history, (name, credit)))

    def probabilities(self, rng: np.random.Generator) -> dict[str, float]:
        """Probability of each operator; they sum to 1. Only ``thompson`` uses the generator."""
        count = len(self.names)
        preferred = self._preferred(rng)
        return {
            name: self.floor / count + (1 - self.floor) * float(share)
            for name, share in zip(self.names, preferred, strict=True)
        }

    def choose(self, rng: np.random.Generator) -> str:
        """An operator, drawn by its probability."""
        shares = self._shares(rng) if self.mode == "thompson" else self._fixed_shares
        return self.names[int(np.searchsorted(shares, rng.random(), side="right"))]

    def _shares(self, rng: np.random.Generator) -> Array:
        """Where the part of [0, 1] ends that belongs to each operator."""
        shares = np.cumsum(list(self.probabilities(rng).values()))
        return np.asarray(shares / shares[-1])

    @functools.cached_property
    def _fixed_shares(self) -> Array:
        return self._shares(np.random.default_rng())

    @functools.cached_property
    def _counts(self) -> tuple[Array, Array]:
        """Uses and credit of each operator."""
        uses = np.array([sum(used == name for used, _ in self.history) for name in self.names], float)
        credit = np.array([sum(got for used, got in self.history if used == name) for name in self.names])
        return uses, credit

    def _preferred(self, rng: np.random.Generator) -> Array:
        uses, credit = self._counts
        if self.mode == "uniform":
            return np.full(len(self.names), 1 / len(self.names))
        if self.mode == "thompson":
            means = rng.beta(1 + credit, 1 + uses - credit)
            return np.asarray(np.arange(len(self.names)) == int(np.argmax(means)), dtype=float)
        # One imagined success in two uses each: an operator not tried lately counts as an even bet.
        means = (1 + credit) / (2 + uses)
        return np.asarray(means / means.sum(), dtype=float)
