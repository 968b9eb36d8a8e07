"""Which parameters a define-by-run objective asks for together, learnt from its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.samplers.records import Key

MOST_VALUES = 64
"""An integer with more values is not taken for one that decides which other parameters there are."""


class Branches:
    """For each value of a discrete parameter, the parameters asked for beside it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], frozenset[str]] = {}
        self._always: dict[tuple[str, str], frozenset[str]] = {}
        self._distributions: dict[str, tuple[Key, BaseDistribution]] = {}

    def observe(self, key: Key, trial: FrozenTrial) -> None:
        """Learn from a finished trial; the order of trials does not matter."""
        names = frozenset(trial.params)
        for name, distribution in trial.distributions.items():
            if name not in self._distributions or self._distributions[name][0] <= key:
                self._distributions[name] = key, distribution
            if trial.state == TrialState.COMPLETE and decides(distribution):
                place = name, repr(trial.params[name])
                self._seen[place] = self._seen.get(place, frozenset()) | names
                self._always[place] = self._always.get(place, names) & names

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Those of all parameters by name, ascending, each as in the newest trial that has it."""
        return {name: found for name, (_, found) in sorted(self._distributions.items())}

    def distribution(self, name: str) -> BaseDistribution:
        """The distribution of a parameter in the newest trial that has it."""
        return self._distributions[name][1]

    def switches(self, params: Mapping[str, Any]) -> list[str]:
        """Those of the parameters of which another value was seen beside other parameters."""
        found = []
        for name, value in params.items():
            here = self._seen.get((name, repr(value)), frozenset())
            if any(other == name and names != here for (other, _), names in self._seen.items()):
                found.append(name)
        return found

    def live(self, params: Mapping[str, Any], changed: Sequence[str]) -> dict[str, Any]:
        """The parameters without those that no trial was asked for beside one of the values given.

        Args:
            params: Values by name.
            changed: Names whose values decide before those of the others.
        """
        kept = dict(params)
        for name in (*changed, *sorted(set(params) - set(changed))):
            if name in kept:
                beside = self._seen.get((name, repr(params[name])), frozenset(kept))
                kept = {other: value for other, value in kept.items() if other in beside}
        return kept

    def missing(self, params: Mapping[str, Any]) -> list[str]:
        """Names, ascending, that every trial was asked for beside one of the values and some beside each."""
        places = [(name, repr(value)) for name, value in params.items() if (name, repr(value)) in self._seen]
        wanted = {name for place in places for name in self._always[place] - set(params)}
        return sorted(name for name in wanted if all(name in self._seen[place] for place in places))


def decides(distribution: BaseDistribution) -> bool:
    """Whether a parameter may decide which others there are."""
    if isinstance(distribution, CategoricalDistribution):
        return True
    if not isinstance(distribution, IntDistribution):
        return False
    return (distribution.high - distribution.low) // distribution.step < MOST_VALUES
