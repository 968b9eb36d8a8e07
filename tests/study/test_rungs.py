"""Laws of the ladder, of who climbs on, and of studies with rungs."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState

from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget, RungResult, Rungs
from petra_optuna.operations import Half, Prune, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.study import attributes, controls, evaluation_of, front, optimize, resume, study_savings
from petra_optuna.study.rungs import goes_on, rung_results, standing
from petra_optuna.tasks import Mode, Task

SPACE = SearchSpace((Train, Prune), (Half,), max_length=2)


@pytest.mark.parametrize("full", [Budget(6), Budget(5, 0.3), Budget(1)], ids=str)
@pytest.mark.parametrize("rungs", [Rungs(), Rungs(2, 0.25), Rungs(4, 1 / 49)], ids=str)
def test_a_ladder_climbs_to_the_full_budget(full: Budget, rungs: Rungs) -> None:
    ladder = rungs.ladder(full)
    assert ladder[-1] == full
    assert full not in ladder[:-1]
    for number, rung in enumerate(ladder, start=1):
        assert rung.epochs == min(number * rungs.min_epochs, full.epochs)
        share = min(number * rungs.min_fraction, 1.0)
        assert rung.data_fraction == pytest.approx(share * full.data_fraction)
    moments = rungs.moments(full, full.epochs)
    assert list(moments) == list(range(1, len(ladder)))
    assert list(moments.values()) == sorted(set(moments.values()))


def test_no_rung_lies_at_or_beyond_the_end_of_a_training() -> None:
    assert Rungs(6).ladder(Budget(6)) == (Budget(6),)
    assert Rungs().moments(Budget(6), epochs=2) == {1: 1.0}
    assert Rungs().moments(Budget(6), epochs=0) == {}


@pytest.mark.parametrize("arguments", [(0,), (1, 0.0), (1, 1.5), (1, 1.0, 1.0), (1, 1.0, float("nan"))])
def test_a_ladder_that_cannot_be_climbed_is_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(UserError):
        Rungs(*arguments)  # type: ignore[arg-type]


def _result(quality: float, parameters: int = 10, conversion: str = "none") -> RungResult:
    return RungResult(1, quality, parameters, 100, conversion)


def test_a_dominated_result_stops_and_one_that_none_dominates_goes_on() -> None:
    others = [_result(0.9), _result(0.8), _result(0.7, 5)]
    assert goes_on(*standing(_result(0.95), others, "maximize"), Rungs())
    assert goes_on(*standing(_result(0.1, 4), others, "maximize"), Rungs())
    assert not goes_on(*standing(_result(0.5), others, "maximize"), Rungs())
    assert goes_on(*standing(_result(0.5), others, "minimize"), Rungs())
    assert goes_on(*standing(_result(0.5, conversion="fp16"), others, "maximize"), Rungs())


def test_the_standing_does_not_depend_on_the_order_of_the_others() -> None:
    rng = random.Random(0)
    others = [_result(rng.random(), rng.randrange(9)) for _ in range(30)]
    expected = standing(_result(0.5, 4), others, "maximize")
    for _ in range(5):
        rng.shuffle(others)
        assert standing(_result(0.5, 4), others, "maximize") == expected


def _study(
    task: Task, folder: Path, rungs: Rungs | None, trials: int = 5, mode: Mode = "pretrained"
) -> optuna.Study:
    return optimize(
        task,
        trials=trials,
        storage=f"sqlite:///{folder}/study.db",
        space=SPACE,
        budget=Budget(2),
        rungs=rungs,
        cache=folder / "cache",
        mode=mode,
    )


def _enqueue(study: optuna.Study, like: int, **changes: float | str) -> None:
    study.enqueue_trial({**study.trials[like].params, **changes})


@pytest.fixture(scope="module")
def stopped(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory, quick_measuring: None) -> optuna.Study:
    """Controls, then a trial whose learning rate ruins the model."""
    folder = tmp_path_factory.mktemp("rungs")
    study = _study(tiny_task, folder, Rungs(), trials=len(controls(SPACE, Budget(2))))
    _enqueue(study, 1, **{"recipe.lr": 1e-1, "recipe.optimizer": "rmsprop"})
    return resume(tiny_task, storage=f"sqlite:///{folder}/study.db", trials=4, space=SPACE)


def test_controls_are_judged_and_never_stopped(stopped: optuna.Study) -> None:
    assert [trial.state for trial in stopped.trials[:3]] == [TrialState.COMPLETE] * 3
    assert f"{attributes.RUNG}1" in stopped.trials[1].user_attrs
    assert not any(name.startswith(attributes.RUNG) for name in stopped.trials[0].user_attrs)


def test_a_dominated_trial_is_pruned_with_reason_and_result(stopped: optuna.Study) -> None:
    trial = stopped.trials[3]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[attributes.FAILURE].startswith("rung 1: accuracy")
    better = stopped.trials[1].user_attrs[f"{attributes.RUNG}1"]
    assert trial.user_attrs[f"{attributes.RUNG}1"]["quality"] < better["quality"]
    assert 3 not in [row.trial for row in front(stopped).rows]
    total = study_savings(stopped)
    assert (total.rung_stops, total.preview_stops, total.saved_epochs) == (1, 0, 1.0)
    assert total.train_s > evaluation_of(stopped, 1)["values"]["train_s"] > 0


def test_results_of_trials_that_were_run_again_do_not_count(stopped: optuna.Study) -> None:
    """State is in the storage alone: what a killed trial stored is its re-run's to store again."""
    before = rung_results(stopped, 1, without=-1)
    dead = optuna.trial.create_trial(
        state=TrialState.FAIL, user_attrs={f"{attributes.RUNG}1": dataclasses.asdict(_result(1.0, 1))}
    )
    stopped.add_trial(dead)
    assert len(rung_results(stopped, 1, without=-1)) == len(before) + 1
    retry = {"petra:retry": {"of": len(stopped.trials) - 1, "index": 4, "attempt": 1}}
    stopped.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, system_attrs=retry))
    assert rung_results(stopped, 1, without=-1) == before


@pytest.mark.usefixtures("quick_measuring")
@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_survivor_ends_where_it_would_without_rungs(tiny_task: Task, tmp_path: Path, mode: Mode) -> None:
    # The first control that trains: what comes from the cache is not judged again.
    number = 1 if mode == "pretrained" else 0
    found = []
    for name, rungs in (("with", Rungs(1, 0.3)), ("without", None)):
        (tmp_path / name).mkdir()
        study = _study(tiny_task, tmp_path / name, rungs, trials=number + 1, mode=mode)
        record = evaluation_of(study, number)
        rebuilt = next((tmp_path / name).rglob(record["rebuild"]["id"])).read_bytes()
        found.append((record["artifact"]["sha256"], hashlib.sha256(rebuilt).hexdigest()))
        judged = [key for key in study.trials[number].user_attrs if key.startswith(attributes.RUNG)]
        assert len(judged) == (3 if rungs else 0)
    assert found[0] == found[1]
