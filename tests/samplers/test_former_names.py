"""A study goes on whose trials were stored before fields got other names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from support.former_names import former_params

from petra_optuna.errors import TrialError
from petra_optuna.pipebench import PipeBench
from petra_optuna.pipebench.operations import LowRank, Prune
from petra_optuna.pipeline import Pipeline, decode, encode
from petra_optuna.samplers import PRIORS, PetraSampler, Plan, rename_enqueued, retry_stale_trial

BENCH = PipeBench.variant("medium")
SPACE = BENCH.space
PLANTED = Pipeline((Prune(removed=0.31), LowRank(rule="share", kept_weights=0.44)))


def _study(sampler: BaseSampler, trials: Sequence[FrozenTrial] = ()) -> optuna.Study:
    study = optuna.create_study(directions=BENCH.directions, sampler=sampler)
    study.set_user_attr("petra:bounds", BENCH.bounds)
    study.add_trials(trials)
    return study


def _as_before(trial: FrozenTrial) -> FrozenTrial:
    """The trial as the release stored it in which these fields had their first names."""
    plan = trial.system_attrs["petra:plan"]
    return optuna.trial.create_trial(
        state=trial.state,
        params=former_params(trial.params, SPACE),
        distributions=former_params(trial.distributions, SPACE),
        values=trial.values,
        system_attrs={
            **trial.system_attrs,
            "petra:plan": {**plan, "params": former_params(plan["params"], SPACE)},
        },
    )


def _run(study: optuna.Study, count: int) -> None:
    study.optimize(BENCH.objective, n_trials=count, catch=(TrialError,))


@pytest.mark.parametrize("genes", ["random", "tpe"])
def test_the_search_goes_on_as_if_nothing_had_been_renamed(genes: Any) -> None:
    settings: dict[str, Any] = {"seed": 3, "population_size": 6, "genes": genes}
    present = _study(PetraSampler(SPACE, **settings))
    _run(present, 24)
    former = _study(PetraSampler(SPACE, **settings), [_as_before(trial) for trial in present.trials])
    assert any("n0.prune.ratio" in trial.params for trial in former.trials)
    _run(present, 12)
    _run(former, 12)
    assert [decode(trial.params, SPACE).hash for trial in former.trials] == [
        decode(trial.params, SPACE).hash for trial in present.trials
    ]
    for trial in former.trials[24:]:
        assert trial.params == encode(decode(trial.params, SPACE), SPACE)
    assert any(trial.system_attrs["petra:plan"]["parent"] in range(24) for trial in former.trials[24:])


def test_a_killed_trial_is_run_again_by_its_plan() -> None:
    plan = Plan(0, former_params(encode(PLANTED, SPACE), SPACE), hash=PLANTED.hash)
    killed = optuna.trial.create_trial(
        state=TrialState.FAIL, system_attrs={"petra:plan": dataclasses.asdict(plan)}
    )
    study = _study(PetraSampler(SPACE, seed=1), [killed])
    retry_stale_trial(study, study.trials[0])
    _run(study, 1)
    assert study.trials[1].params == encode(PLANTED, SPACE)


def test_enqueued_and_held_values_are_read_under_former_names() -> None:
    study = _study(PetraSampler(SPACE, seed=1))
    study.enqueue_trial(former_params(encode(PLANTED, SPACE), SPACE))
    _run(study, 1)
    assert study.trials[0].params == encode(PLANTED, SPACE)
    study.sampler = PartialFixedSampler({"n0.op": "prune", "n0.prune.ratio": 0.25}, study.sampler)
    _run(study, 5)
    assert {trial.params.get("n0.prune.removed") for trial in study.trials[1:] if trial.params["length"]} == {
        0.25
    }


def test_a_waiting_trial_is_what_was_enqueued_under_any_sampler() -> None:
    study = _study(RandomSampler(0))
    study.enqueue_trial(former_params(encode(PLANTED, SPACE), SPACE))
    rename_enqueued(study, SPACE)
    _run(study, 1)
    assert study.trials[0].params == encode(PLANTED, SPACE)


def test_priors_of_before_shape_the_same_search() -> None:
    stories = []
    for field in ("ratio", "removed"):
        study = _study(PetraSampler(SPACE, seed=5))
        prior = {"operation": "prune", "field": field, "value": 0.2, "when": {"scope": "local"}}
        study.set_user_attr(PRIORS, [prior])
        _run(study, 20)
        stories.append([trial.params for trial in study.trials])
    assert stories[0] == stories[1]
    bare = _study(PetraSampler(SPACE, seed=5))
    _run(bare, 20)
    assert stories[0] != [trial.params for trial in bare.trials]
