"""The fit finds what was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from support.specification import specification_with

from petra_optuna.errors import TrialError
from petra_optuna.evaluation import Budget
from petra_optuna.pipebench import PipeBench, fitted_names, full_space, profile
from petra_optuna.pipebench.best_known import random_member
from petra_optuna.pipebench.coefficients import BASE
from petra_optuna.pipeline import Pipeline
from petra_optuna.study import StudyRecord
from studies.tools.fit_pipebench import Observation, coefficient_table, fit, observe, residual_table

PLANTED = {
    "prune.damage": 1.7,
    "prune.parameters.local": 0.8,
    "low_rank.share.share": 0.9,
    "train.recovery": 0.7,
    "capacity.damage": 1.5,
    "latency.fixed.fp32": 1.4,
    "latency.work.static": 0.8,
    "size.weights.static": 0.9,
    "seconds.epoch": 2.0,
}


def record(bench: PipeBench, pipeline: Pipeline) -> dict[str, Any] | None:
    """What a study would have stored of a pipeline."""
    pipeline = pipeline.canonical()
    try:
        states = bench.states(pipeline)
    except TrialError:
        return None
    values = bench.outcome(states[-1]).values
    assert values is not None
    names = ("accuracy", "latency_ms", "size_bytes")
    nodes = [
        {
            "op": node.name,
            "seconds": after.seconds - before.seconds,
            "parameters_before": before.parameters,
            "parameters_after": after.parameters,
            "macs_before": before.macs,
            "macs_after": after.macs,
        }
        for node, before, after in zip(pipeline.body, states[:-1], states[1:], strict=False)
    ]
    return {"pipeline": pipeline.to_dict(), "values": dict(zip(names, values, strict=True)), "nodes": nodes}


def observations(coefficients: dict[str, float], count: int) -> list[Observation]:
    """Trials of a study in memory, read as the command reads them."""
    bench = PipeBench("planted", full_space(4), ("quality", "latency_ms", "size_bytes"), coefficients)
    study = optuna.create_study(directions=["maximize"])
    original = bench.evaluate(Pipeline()).values
    assert original is not None
    names = ("accuracy", "latency_ms", "size_bytes")
    values = {**dict(zip(names, original, strict=True)), "throughput_per_s": 1.0}
    study.set_user_attr("petra:yardstick", {"values": values})
    StudyRecord(study).store_specification(specification_with(budget=Budget(bench.epochs)))
    rng = np.random.default_rng(5)
    while len(study.trials) < count:
        stored = record(bench, random_member(bench, rng))
        if stored is not None:
            trial = optuna.create_trial(value=0.0, user_attrs={"petra:evaluation": stored})
            study.add_trial(trial)
    return list(observe(study))


NAMES = (*PLANTED, "prune.power", "low_rank.damage", "low_rank.power", "train.shock", "static.damage")


def test_the_fit_recovers_planted_coefficients() -> None:
    base = dict(profile(BASE))
    planted = {name: value * PLANTED.get(name, 1.0) for name, value in base.items()}
    found = observations(planted, 40)
    assert len(found) == 40
    new = fit(found, base, NAMES)
    for name, factor in PLANTED.items():
        assert new[name] / base[name] == pytest.approx(factor, rel=0.1), name
    assert all(new[name] == base[name] for name in base if name not in NAMES)
    table = residual_table(found, base, new)
    assert table.count("\n") == 8
    assert "| seconds.epoch |" in coefficient_table(base, new)


def test_constants_and_references_are_not_fitted() -> None:
    names = fitted_names(profile(BASE))
    assert "prune.damage" in names
    assert not {"chance", "blocks", "train.divergence", "prune.criterion.magnitude_l2"} & set(names)


def test_trials_that_say_nothing_change_nothing() -> None:
    base = dict(profile(BASE))
    new = fit(observations(base, 10), base, NAMES)
    assert all(new[name] == pytest.approx(value, rel=1e-3) for name, value in base.items())
