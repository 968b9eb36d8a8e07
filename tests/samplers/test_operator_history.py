"""A search that was started from another study's success history."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from support.toy_space import BOUNDS, DIRECTIONS, FREE, objective

from petra_optuna.evolution import MUTATIONS
from petra_optuna.samplers import (
    CREDIT,
    OperatorUse,
    PetraSampler,
    fail_orphans,
    finished_trials,
    operator_history,
    plan_indices,
    plan_of,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)
NAMES = tuple(mutation.name for mutation in MUTATIONS)
GOOD = [OperatorUse("insert", None, None, 1.0)] * 30 + [
    OperatorUse(name, None, None, 0.0) for name in NAMES
] * 2
TRIALS = 40


def _study(inherited: list[OperatorUse], storage: str | None = None) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name="toy", directions=DIRECTIONS)
    study.set_user_attr("petra:bounds", BOUNDS)
    if inherited:
        study.set_user_attr(CREDIT, [dataclasses.asdict(use) for use in inherited])
    study.sampler = _sampler()
    return study


def _sampler(**options: Any) -> PetraSampler:
    settings = {"population_size": 6, "strength": "adaptive", "candidates": 3, "window": 12}
    return PetraSampler(FREE, seed=4, **{**settings, **options})  # type: ignore[arg-type]


def _story(study: optuna.Study) -> list[tuple[int, str, str]]:
    """Plan and values by plan index, parents by theirs; floats as text, to the last bit."""
    indices = plan_indices(study.trials)
    story = []
    for trial in finished_trials(study):
        plan = plan_of(trial)
        assert plan is not None
        parent = None if plan.parent is None else indices[plan.parent]
        plan = dataclasses.replace(plan, parent=parent)
        story.append((indices[trial.number], repr(plan), repr(trial.values)))
    return sorted(story)


@pytest.fixture(scope="module")
def warm() -> optuna.Study:
    study = _study(GOOD)
    study.optimize(objective, n_trials=TRIALS)
    return study


def test_the_history_goes_on_from_the_inherited_one(warm: optuna.Study) -> None:
    """Own mutations behind inherited ones, the newest that fit the window: it slides over both."""
    own = operator_history(warm, 10_000)[len(GOOD) :]
    assert operator_history(warm, 10_000) == [*GOOD, *own]
    assert 12 < len(own) < TRIALS
    for count in (1, 5, len(own), len(own) + 1, len(own) + len(GOOD)):
        assert operator_history(warm, count) == [*GOOD, *own][-count:]


def test_the_state_shows_inherited_credit_until_the_studys_own_has_pushed_it_out(warm: optuna.Study) -> None:
    fresh = _study(GOOD[:30])
    rates, uses = (getattr(_sampler().state(fresh), name) for name in ("rates", "use_counts"))
    assert uses == {name: 12 * (name == "insert") for name in NAMES}
    assert all(rates["insert"] > rates[name] for name in NAMES if name != "insert")
    bare = optuna.create_study(directions=DIRECTIONS)
    bare.set_user_attr("petra:bounds", BOUNDS)
    for trial in warm.get_trials():
        bare.add_trial(trial)
    sampler = _sampler()
    assert sampler.state(warm) == sampler.state(bare)
    long = _sampler(window=10_000)
    assert long.state(warm).use_counts != long.state(bare).use_counts


def test_inherited_credit_steers_the_first_plans() -> None:
    told, untold = _study(GOOD[:30]), _study([])
    for study in (told, untold):
        study.sampler = _sampler(second_mutation=0.0, candidates=1, window=50)
        study.optimize(objective, n_trials=TRIALS)
    inserted = [
        sum(plan is not None and plan.operator == "insert" for plan in map(plan_of, study.trials))
        for study in (told, untold)
    ]
    assert [trial.params for trial in told.trials[:6]] == [trial.params for trial in untold.trials[:6]]
    assert inserted[0] > inserted[1]


def test_names_that_the_sampler_does_not_have_do_no_harm() -> None:
    study = _study([OperatorUse("of another sampler", "neither", 0.1, 1.0)] * 30)
    study.optimize(objective, n_trials=12)
    assert sum(_sampler().state(study).rates.values()) == pytest.approx(1)


def test_a_killed_and_resumed_warm_study_equals_one_never_killed(warm: optuna.Study, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    _study(GOOD, url)
    for stop in (7, 15, 29, TRIALS):
        study = optuna.load_study(study_name="toy", storage=url, sampler=_sampler())
        fail_orphans(study, lambda trial: True)
        study.optimize(objective, n_trials=stop - len(finished_trials(study)))
        if stop < TRIALS:
            study.ask().suggest_int("length", 0, FREE.max_length)  # killed with its plan made
    assert len(study.trials) == TRIALS + 3
    assert _story(study) == _story(warm)


def test_a_trace_shows_what_was_inherited(warm: optuna.Study) -> None:
    trace = _sampler().trace(warm)
    assert sum(trace[0].use_counts.values()) == 12
    assert trace[-1] == _sampler().state(warm)
