"""What the user of the sampler can choose: every ingredient is a switch, to be left out and compared."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from petra_optuna.errors import UserError
from petra_optuna.evolution import MUTATIONS, Mutation, OperatorRates, RatesMode, Survival

WINDOW = 50
"""How many of the newest mutations count for the rates, unless the sampler is told otherwise."""

GeneSource = Literal["random", "tpe"]
Strength = Literal["fixed", "adaptive"]
ParentChoice = Literal["uniform", "tournament"]


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of ``PetraSampler``, which describes them.

    Raises:
        UserError: On construction, when one is outside its range.
    """

    seed: int
    population_size: int
    random_share: float
    mutations: tuple[Mutation, ...]
    rates: RatesMode
    floor: float
    window: int
    survival: Survival
    parents: ParentChoice
    genes: GeneSource
    starts: bool
    strength: Strength
    second_mutation: float
    immigrants: float
    adapt_depth: bool
    avoid_duplicates: bool
    candidates: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        names = [mutation.name for mutation in self.mutations]
        if self.seed < 0 or self.population_size < 2 or not names or len(set(names)) < len(names):
            raise UserError(
                "the sampler needs seed >= 0, population_size >= 2 and mutations of distinct names, "
                f"got {self.seed}, {self.population_size} and {', '.join(names) or 'none'}"
            )
        if self.candidates < 1:
            raise UserError(f"candidates must be >= 1, got {self.candidates}")
        for name in ("random_share", "second_mutation", "immigrants"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise UserError(f"{name} is a share in [0, 1), got {share}")
        for name, kinds in _CHOICES.items():
            if getattr(self, name) not in get_args(kinds):
                raise UserError(
                    f"{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}"
                )
        OperatorRates(tuple(names), (), self.rates, self.window, self.floor)

    @property
    def random_count(self) -> int:
        """How many parents are drawn at random."""
        return round(self.random_share * self.population_size)

    @property
    def elite_count(self) -> int:
        """How many parents are the best."""
        return max(self.population_size - self.random_count, 1)


_CHOICES: dict[str, Any] = {
    "survival": Survival,
    "parents": ParentChoice,
    "genes": GeneSource,
    "strength": Strength,
}

__all__ = ["MUTATIONS", "GeneSource", "Options", "ParentChoice", "Strength"]
