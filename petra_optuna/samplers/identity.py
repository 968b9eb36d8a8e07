"""The pipeline or the parameters of a trial and their canonical hash, by which duplicates are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from petra_optuna.errors import PipelineError
from petra_optuna.pipeline import Pipeline, SearchSpace, decode
from petra_optuna.samplers.records import FIXED, plan_of


def pipeline_of(trial: FrozenTrial, space: SearchSpace) -> Pipeline | None:
    """The trial's pipeline; None where its parameters are incomplete or come from another space."""
    params = trial.params if trial.state.is_finished() else trial.system_attrs.get(FIXED, {})
    try:
        return decode(params, space)
    except PipelineError:
        return None


def params_hash(params: Mapping[str, Any]) -> str:
    """SHA-256 of parameters by name; the type of a value counts, the order of the names does not."""
    text = json.dumps(sorted((name, repr(value)) for name, value in params.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def trial_hash(trial: FrozenTrial, space: SearchSpace | None) -> str | None:
    """Canonical hash of what the trial ran or is to run; None where that is not known."""
    if space is None and trial.state.is_finished():
        return params_hash(trial.params)
    plan = plan_of(trial)
    if plan is not None:
        return plan.hash
    if space is None:
        return params_hash(trial.system_attrs[FIXED]) if FIXED in trial.system_attrs else None
    pipeline = pipeline_of(trial, space)
    return None if pipeline is None else pipeline.hash
