"""Options of the sampler: every ingredient is a switch that can be left out and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

from petra_optuna.errors import UserError
from petra_optuna.evolution import MUTATIONS, Mutation, OperatorRates, RatesMode, Survival

WINDOW = 50
"""How many of the newest mutations count for the rates, unless the sampler is told otherwise."""

GeneChoice = Literal["random", "tpe"]
Strength = Literal["fixed", "adaptive"]
ParentChoice = Literal["uniform", "tournament"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``PetraSampler``, which describes each; the defaults stand here.

    Raises:
        UserError: On construction, when an option is outside its range.
    """

    population_size: int = 8
    random_share: float = 0.0
    mutations: Sequence[Mutation] = MUTATIONS
    rates: RatesMode = "matching"
    floor: float = 0.2
    window: int = WINDOW
    survival: Survival = "hypervolume"
    parents: ParentChoice = "tournament"
    genes: GeneChoice = "random"
    use_priors: bool = True
    strength: Strength = "fixed"
    second_mutation: float = 0.5
    immigrants: float = 0.0
    adapt_depth: bool = True
    avoid_duplicates: bool = True
    candidates: int = 16

    def __post_init__(self) -> None:
        """Check the ranges."""
        object.__setattr__(self, "mutations", tuple(self.mutations))
        names = tuple(mutation.name for mutation in self.mutations)
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"`mutations` must be one or more of distinct names, got {', '.join(names) or 'none'}"
            )
        for name, least in (("population_size", 2), ("candidates", 1)):
            if getattr(self, name) < least:
                raise UserError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        for name in ("random_share", "second_mutation", "immigrants"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise UserError(f"`{name}` is a share in [0, 1), got {share}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise UserError(
                    f"`{name}` must be one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}"
                )
        OperatorRates(names, (), self.rates, self.window, self.floor)

    @property
    def random_count(self) -> int:
        """Number of parents drawn at random."""
        return round(self.random_share * self.population_size)

    @property
    def elite_count(self) -> int:
        """Number of parents that are the best trials."""
        return max(self.population_size - self.random_count, 1)


_CHOICES: dict[str, Any] = {
    "rates": RatesMode,
    "survival": Survival,
    "parents": ParentChoice,
    "genes": GeneChoice,
    "strength": Strength,
}

PAPER = Options(
    population_size=16,
    random_share=0.25,
    mutations=MUTATIONS,
    rates="matching",
    floor=0.2,
    window=50,
    survival="rank",
    parents="uniform",
    genes="random",
    use_priors=False,
    strength="fixed",
    second_mutation=0.0,
    immigrants=0.0,
    adapt_depth=True,
    avoid_duplicates=False,
    candidates=1,
)
"""The search as the paper describes it, whatever the defaults are.

Pareto-optimal pipelines plus randomly sampled individuals, mutation only, with probabilities by success, and
depth adaptation. Everything new is drawn uniformly, and nothing keeps two trials from being the same. Numbers
that the paper does not give are those that this package began with.
"""

__all__ = ["PAPER", "WINDOW", "GeneChoice", "Options", "ParentChoice", "Strength"]
