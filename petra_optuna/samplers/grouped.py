"""One sampler that leaves groups of parameters to samplers of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState


class GroupedSampler(BaseSampler):
    """Leaves some parameters to other samplers, for example cores to a random one in a TPE search.

    Each sampler sees whole trials and draws its own parameters only.

    Args:
        default: Sampler of all parameters that no group names.
        groups: Names of parameters -> their sampler.

    Example:
        >>> sampler = GroupedSampler(TPESampler(seed=0), {("cores",): RandomSampler(seed=0)})
    """

    def __init__(self, default: BaseSampler, groups: Mapping[tuple[str, ...], BaseSampler]) -> None:
        self._default = default
        self._by_name = {name: sampler for names, sampler in groups.items() for name in names}
        self._samplers = tuple(dict.fromkeys((default, *groups.values())))

    def reseed_rng(self) -> None:
        """Reseed each sampler."""
        for sampler in self._samplers:
            sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that any of the samplers draws together, each in its own group."""
        return {
            name: distribution
            for sampler in self._samplers
            for name, distribution in sampler.infer_relative_search_space(study, trial).items()
            if self._of(name) is sampler
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Each sampler's values of its own parameters."""
        values: dict[str, Any] = {}
        for sampler in self._samplers:
            own = {name: one for name, one in search_space.items() if self._of(name) is sampler}
            values.update(sampler.sample_relative(study, trial, own))
        return values

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value by the sampler of the parameter's group."""
        return self._of(param_name).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Tell each sampler."""
        for sampler in self._samplers:
            sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell each sampler."""
        for sampler in self._samplers:
            sampler.after_trial(study, trial, state, values)

    def _of(self, name: str) -> BaseSampler:
        return self._by_name.get(name, self._default)
