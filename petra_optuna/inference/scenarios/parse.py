"""Scenarios as people write them in one word."""

from __future__ import annotations

from petra_optuna.errors import UserError
from petra_optuna.inference.scenarios.base import Scenario
from petra_optuna.inference.scenarios.multi_stream import MultiStream
from petra_optuna.inference.scenarios.offline import Offline
from petra_optuna.inference.scenarios.server import Server
from petra_optuna.inference.scenarios.single_stream import SingleStream

FORMS = "server:SAMPLES,PERIOD_MS, multi_stream:SAMPLES_PER_S, single_stream or offline:SAMPLES"


def parse_scenario(text: str) -> Scenario:
    """Read a scenario.

    Raises:
        UserError: When the text is none, or a number is out of range.

    Example:
        >>> parse_scenario("server:20,100")
        Server(samples=20, period_s=0.1)
    """
    name, _, numbers = text.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")] if numbers else []
        if name == SingleStream.name and not values:
            return SingleStream()
        if name == Offline.name and len(values) == 1:
            return Offline(_whole(values[0]))
        if name == MultiStream.name and len(values) == 1:
            return MultiStream(values[0])
        if name == Server.name and len(values) == 2:
            return Server(_whole(values[0]), values[1] / 1e3)
    except ValueError as error:
        raise UserError(f"scenario {text!r}: {error}; give {FORMS}") from error
    raise UserError(f"unknown scenario {text!r}; give {FORMS}")


def _whole(value: float) -> int:
    if not value.is_integer():
        raise ValueError(f"{value:g} is no whole number of samples")
    return int(value)
