"""Parameters of a tuning study: the workload's, with what the user gives in their place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from petra_optuna.edgetune.workload import Workload
from petra_optuna.errors import UserError
from petra_optuna.samplers import Groups

TRAIN_THREADS = "train_threads"
"""Parameter of the system that trains."""
INFERENCE_PARAMETERS = ("batch", "cores", "threads", "runtime")


def checked_space(workload: Workload, given: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """All parameters of the study.

    Raises:
        UserError: When nothing reads a given parameter, or ``train_threads`` are no whole numbers.
    """
    own = {**workload.model_space, **workload.training_space}
    _check_known(given, (*own, TRAIN_THREADS), "the space")
    threads = given.get(TRAIN_THREADS)
    if threads is not None and not (isinstance(threads, IntDistribution) and threads.low >= 1):
        raise UserError(f"`{TRAIN_THREADS}` of the space must be whole numbers of at least 1")
    return {**own, **given}


def checked_groups(groups: Groups, space: Mapping[str, BaseDistribution]) -> dict[str, tuple[str, ...]]:
    """The groups, of parameters of the study and of the nested searches.

    Raises:
        UserError: When there is no such parameter.
    """
    for name, parameters in groups.items():
        _check_known(parameters, (*space, *INFERENCE_PARAMETERS), f"the group of {name}")
    return {name: tuple(parameters) for name, parameters in groups.items()}


def most_threads(space: Mapping[str, BaseDistribution], threads: int) -> int:
    """Most threads that a trial trains with; ``threads`` where they are no parameter."""
    distribution = space.get(TRAIN_THREADS)
    return distribution.high if isinstance(distribution, IntDistribution) else threads


def parameter(text: str, known: Mapping[str, BaseDistribution]) -> tuple[str, BaseDistribution]:
    """Read ``NAME=LOW:HIGH`` or ``NAME=VALUE,VALUE,...``; kind and scale are those of the known parameter.

    Raises:
        UserError: When the text is none of these, or its values do not suit the parameter.

    Example:
        >>> parameter("depth=18,34", {"depth": CategoricalDistribution((18, 34, 50))})
        ('depth', CategoricalDistribution(choices=(18, 34)))
    """
    name, separator, values = text.partition("=")
    if not separator or not values:
        raise UserError(f"a parameter is NAME=LOW:HIGH or NAME=VALUE,VALUE,...; got {text!r}")
    _check_known((name,), (*known, TRAIN_THREADS), "the space")
    old = known.get(name, IntDistribution(1, 1))
    try:
        if isinstance(old, CategoricalDistribution):
            chosen = tuple(_choice(value, old) for value in values.split(","))
            return name, CategoricalDistribution(chosen)
        low, _, high = values.partition(":")
        if isinstance(old, IntDistribution):
            return name, IntDistribution(int(low), int(high or low), log=old.log, step=old.step)
        assert isinstance(old, FloatDistribution)
        return name, FloatDistribution(_finite(low), _finite(high or low), log=old.log, step=old.step)
    except ValueError as error:
        raise UserError(f"{text!r} does not suit parameter {name!r}: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _choice(text: str, old: CategoricalDistribution) -> bool | int | float | str | None:
    for choice in old.choices:
        if str(choice) == text:
            return choice
    raise ValueError(f"{text} is none of {', '.join(map(str, old.choices))}")


def _check_known(given: Iterable[str], known: tuple[str, ...], what: str) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"parameter {unknown[0]!r} of {what} is unknown; there are {', '.join(known)}")
