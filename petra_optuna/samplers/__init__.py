"""The evolutionary sampler, algorithms by name, re-running of killed trials, stop rules; without torch."""

from petra_optuna.samplers._storage import (
    Heartbeat,
    SharedStorage,
    database_url,
    engine_of,
    finished_elsewhere,
    heartbeats,
    record_heartbeat,
    relational_storage,
    stop_requested,
    store_whole,
    study_id_of,
)
from petra_optuna.samplers._trial_reader import without_collection
from petra_optuna.samplers.algorithms import (
    ALGORITHMS,
    Algorithm,
    Groups,
    Space,
    algorithm,
    grid_points,
    grid_size,
    sampler_of,
)
from petra_optuna.samplers.cache import operator_history
from petra_optuna.samplers.grouped import GroupedSampler
from petra_optuna.samplers.options import PAPER, WINDOW, Options
from petra_optuna.samplers.petra import PetraSampler
from petra_optuna.samplers.plots import plot_state
from petra_optuna.samplers.priors import BOUNDS, CREDIT, PRIORS
from petra_optuna.samplers.readings import RETAKEN, SHAPE, MeasuredValues, ShapeReadings
from petra_optuna.samplers.records import OperatorUse, Plan, directions_of, is_external, plan_of, was_enqueued
from petra_optuna.samplers.reruns import finished_trials, plan_indices, superseded
from petra_optuna.samplers.retry import (
    MAX_RETRIES,
    fail_orphans,
    mark_for_rerun,
    rename_enqueued,
    repeated_rerun,
    retry_stale_trial,
)
from petra_optuna.samplers.state import SamplerState
from petra_optuna.samplers.stopping import Generations, Stagnation, StopRule, Targets, TimeLimit

__all__ = [
    "ALGORITHMS",
    "BOUNDS",
    "CREDIT",
    "MAX_RETRIES",
    "PAPER",
    "PRIORS",
    "RETAKEN",
    "SHAPE",
    "WINDOW",
    "Algorithm",
    "Generations",
    "GroupedSampler",
    "Groups",
    "Heartbeat",
    "MeasuredValues",
    "OperatorUse",
    "Options",
    "PetraSampler",
    "Plan",
    "SamplerState",
    "ShapeReadings",
    "SharedStorage",
    "Space",
    "Stagnation",
    "StopRule",
    "Targets",
    "TimeLimit",
    "algorithm",
    "database_url",
    "directions_of",
    "engine_of",
    "fail_orphans",
    "finished_elsewhere",
    "finished_trials",
    "grid_points",
    "grid_size",
    "heartbeats",
    "is_external",
    "mark_for_rerun",
    "operator_history",
    "plan_indices",
    "plan_of",
    "plot_state",
    "record_heartbeat",
    "relational_storage",
    "rename_enqueued",
    "repeated_rerun",
    "retry_stale_trial",
    "sampler_of",
    "stop_requested",
    "store_whole",
    "study_id_of",
    "superseded",
    "was_enqueued",
    "without_collection",
]
