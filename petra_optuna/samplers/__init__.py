"""The evolutionary sampler, a view of its state, re-running of killed trials, stop rules. Without torch."""

from petra_optuna.samplers._storage import database_url, engine_of, study_id_of
from petra_optuna.samplers.cache import operator_history
from petra_optuna.samplers.options import PAPER, WINDOW, Options
from petra_optuna.samplers.petra import PetraSampler
from petra_optuna.samplers.plots import plot_state
from petra_optuna.samplers.priors import BOUNDS, CREDIT, PRIORS
from petra_optuna.samplers.records import OperatorUse, Plan, directions_of, is_external, plan_of, was_enqueued
from petra_optuna.samplers.reruns import finished_trials, plan_indices, superseded
from petra_optuna.samplers.retry import (
    MAX_RETRIES,
    fail_orphans,
    mark_for_rerun,
    rename_enqueued,
    retry_stale_trial,
)
from petra_optuna.samplers.state import SamplerState
from petra_optuna.samplers.stopping import Generations, Stagnation, StopRule, Targets, TimeLimit

__all__ = [
    "BOUNDS",
    "CREDIT",
    "MAX_RETRIES",
    "PAPER",
    "PRIORS",
    "WINDOW",
    "Generations",
    "OperatorUse",
    "Options",
    "PetraSampler",
    "Plan",
    "SamplerState",
    "Stagnation",
    "StopRule",
    "Targets",
    "TimeLimit",
    "database_url",
    "directions_of",
    "engine_of",
    "fail_orphans",
    "finished_trials",
    "is_external",
    "mark_for_rerun",
    "operator_history",
    "plan_indices",
    "plan_of",
    "plot_state",
    "rename_enqueued",
    "retry_stale_trial",
    "study_id_of",
    "superseded",
    "was_enqueued",
]
