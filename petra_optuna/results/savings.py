"""What cache, preview and rungs spared a study."""

from __future__ import annotations

import dataclasses

import optuna

from petra_optuna.evaluation import TrainingLedger
from petra_optuna.study import record as attributes


def study_ledger(study: optuna.Study) -> TrainingLedger:
    """The counters of all trials, summed; zeros where none was stored."""
    stored = [trial.user_attrs.get(attributes.SAVINGS, {}) for trial in study.get_trials(deepcopy=False)]
    names = [field.name for field in dataclasses.fields(TrainingLedger)]
    return TrainingLedger(**{name: sum(one.get(name, 0) for one in stored) for name in names})


def as_line(savings: TrainingLedger) -> str:
    """One line for people."""
    return (
        f"trained {savings.train_s:.0f} s, judged at rungs for {savings.judging_s:.0f} s; "
        f"cache: {savings.cache_hits} nodes reused, "
        f"{savings.cache_misses} computed, {savings.cache_saved_s:.0f} s of training saved, "
        f"{savings.cache_healed} damaged entries healed; stopped: {savings.preview_stops} by preview, "
        f"{savings.rung_stops} at rungs, {savings.saved_epochs:.3g} epochs saved"
    )
