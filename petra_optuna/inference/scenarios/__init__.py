"""How requests arrive, one scenario a file, and how they are served best: simulated from call times."""

from petra_optuna.inference.scenarios.base import Scenario
from petra_optuna.inference.scenarios.groups import split
from petra_optuna.inference.scenarios.multi_stream import MultiStream
from petra_optuna.inference.scenarios.offline import Offline
from petra_optuna.inference.scenarios.parse import FORMS, parse_scenario
from petra_optuna.inference.scenarios.policy import Policy
from petra_optuna.inference.scenarios.recommend import PolicyRecommendation, recommend
from petra_optuna.inference.scenarios.response import Response, Run
from petra_optuna.inference.scenarios.server import Server
from petra_optuna.inference.scenarios.single_stream import SingleStream

SCENARIOS: tuple[type[Scenario], ...] = (SingleStream, MultiStream, Server, Offline)
"""Every scenario; a new one is a row."""

__all__ = [
    "FORMS",
    "SCENARIOS",
    "MultiStream",
    "Offline",
    "Policy",
    "PolicyRecommendation",
    "Response",
    "Run",
    "Scenario",
    "Server",
    "SingleStream",
    "parse_scenario",
    "recommend",
    "split",
]
