"""The samplers of the comparison by kind, with options from the configuration."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from petra_optuna.errors import UserError
from petra_optuna.pipeline import SearchSpace
from petra_optuna.samplers import PetraSampler

KINDS: dict[str, Callable[..., BaseSampler]] = {
    "random": optuna.samplers.RandomSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "nsga3": optuna.samplers.NSGAIIISampler,
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "petra": PetraSampler,
    "petra_paper": PetraSampler.paper,
}
OURS = ("petra", "petra_paper")


def build_sampler(kind: str, options: Mapping[str, Any], space: SearchSpace | None, seed: int) -> BaseSampler:
    """Build a sampler.

    Args:
        kind: A key of ``KINDS``.
        options: Keyword arguments of its constructor.
        space: Search space, for the samplers that know pipelines.
        seed: Seed of its randomness.

    Raises:
        UserError: When the kind or an option is unknown.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of sampler {kind!r}; there are {', '.join(KINDS)}")
    unknown = set(options) - set(inspect.signature(KINDS[kind]).parameters)
    if unknown:
        raise UserError(f"sampler of kind {kind!r} has no option {', '.join(sorted(unknown))}")
    arguments = (space,) if kind in OURS else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return KINDS[kind](*arguments, seed=seed, **options)
