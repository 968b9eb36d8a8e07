"""The conditional search space of a define-by-run objective, learnt from its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.samplers.records import Key

MOST_VALUES = 64
"""An integer with more values is not taken for one that decides which other parameters there are."""


class ConditionalSpace:
    """Knows, for each value of a discrete parameter, which parameters were asked for beside it."""

    def __init__(self) -> None:
        self._some_beside: dict[tuple[str, str], frozenset[str]] = {}
        self._always_beside: dict[tuple[str, str], frozenset[str]] = {}
        self._distributions: dict[str, tuple[Key, BaseDistribution]] = {}

    def observe(self, key: Key, trial: FrozenTrial) -> None:
        """Learn from a finished trial; the order of trials does not matter."""
        names = frozenset(trial.params)
        for name, distribution in trial.distributions.items():
            if name not in self._distributions or self._distributions[name][0] <= key:
                self._distributions[name] = key, distribution
            if trial.state == TrialState.COMPLETE and may_branch(distribution):
                value = name, repr(trial.params[name])
                self._some_beside[value] = self._some_beside.get(value, frozenset()) | names
                self._always_beside[value] = self._always_beside.get(value, names) & names

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Distributions of all parameters by name, ascending, each as in the newest trial that has it."""
        return {name: distribution for name, (_, distribution) in sorted(self._distributions.items())}

    def distribution(self, name: str) -> BaseDistribution:
        """The distribution of a parameter in the newest trial that has it."""
        return self._distributions[name][1]

    def branching_params(self, params: Mapping[str, Any]) -> list[str]:
        """Names of the parameters of which another value was seen beside other parameters."""
        branching = []
        for name, value in params.items():
            beside = self._some_beside.get((name, repr(value)), frozenset())
            if any(other == name and names != beside for (other, _), names in self._some_beside.items()):
                branching.append(name)
        return branching

    def active_params(self, params: Mapping[str, Any], changed: Sequence[str]) -> dict[str, Any]:
        """The parameters without those that no trial was asked for beside one of the values given.

        Args:
            params: Values by name.
            changed: Names whose values decide before those of the others.
        """
        kept = dict(params)
        for name in (*changed, *sorted(set(params) - set(changed))):
            if name in kept:
                beside = self._some_beside.get((name, repr(params[name])), frozenset(kept))
                kept = {other: value for other, value in kept.items() if other in beside}
        return kept

    def missing_params(self, params: Mapping[str, Any]) -> list[str]:
        """Names, ascending, that every trial was asked for beside one of the values and some beside each."""
        pairs = ((name, repr(value)) for name, value in params.items())
        seen = [value for value in pairs if value in self._some_beside]
        wanted = {name for value in seen for name in self._always_beside[value] - set(params)}
        return sorted(name for name in wanted if all(name in self._some_beside[value] for value in seen))


def may_branch(distribution: BaseDistribution) -> bool:
    """Whether a parameter may decide which others there are."""
    if isinstance(distribution, CategoricalDistribution):
        return True
    if not isinstance(distribution, IntDistribution):
        return False
    return (distribution.high - distribution.low) // distribution.step < MOST_VALUES
