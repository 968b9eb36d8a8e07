"""Laws of the ladder, of who climbs on, and of studies with rungs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import random
import re
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from petra_optuna.cli.progress import trial_progress
from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget, EarlyStop, RungResult, Rungs
from petra_optuna.nn.training import training_threads
from petra_optuna.operations import Half, Prune, Train
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results import pipeline_text
from petra_optuna.results.confirmation.retrain import Blueprint, retrain
from petra_optuna.results.export import export_trial
from petra_optuna.study import StudyRecord, controls, optimize, resume, trial_record
from petra_optuna.study.rungs import RungRank, rank_at_rung, reason_to_stop
from petra_optuna.study.trial_record import RungDecision
from petra_optuna.study.worker_context import evaluator_of
from petra_optuna.tasks import Mode, Task

SPACE = SearchSpace((Train, Prune), (Half,), max_length=2)


@pytest.mark.parametrize("full", [Budget(6), Budget(5, 0.3), Budget(1)], ids=str)
@pytest.mark.parametrize("rungs", [Rungs(1, 1.0), Rungs(2, 0.25), Rungs(4, 1 / 49)], ids=str)
def test_a_ladder_climbs_to_the_full_budget(full: Budget, rungs: Rungs) -> None:
    ladder = rungs.ladder(full)
    assert ladder[-1] == full
    assert full not in ladder[:-1]
    for number, rung in enumerate(ladder, start=1):
        assert rung.epochs == min(number * rungs.min_epochs, full.epochs)
        share = min(number * rungs.min_fraction, 1.0)
        assert rung.data_fraction == pytest.approx(share * full.data_fraction)
    moments = dataclasses.replace(rungs, levels=None).moments(full, full.epochs)
    assert list(moments) == list(range(1, len(ladder)))
    assert list(moments.values()) == sorted(set(moments.values()))


def test_no_rung_lies_at_or_beyond_the_end_of_a_training() -> None:
    assert Rungs(6, 1.0).ladder(Budget(6)) == (Budget(6),)
    assert Rungs(1, 1.0, levels=None).moments(Budget(6), epochs=2) == {1: 1.0}
    assert Rungs().moments(Budget(6), epochs=0) == {}


def test_only_so_many_rungs_are_met_the_lowest() -> None:
    full = Budget(6)
    everywhere = list(Rungs(1, 0.25, levels=None).moments(full, 6).items())
    assert len(everywhere) > 2
    for levels in range(1, len(everywhere) + 2):
        assert list(Rungs(1, 0.25, levels=levels).moments(full, 6).items()) == everywhere[:levels]


@pytest.mark.parametrize(
    "arguments", [(0,), (1, 0.0), (1, 1.5), (1, 1.0, 1.0), (1, 1.0, float("nan")), (1, 1.0, 2.0, 0)]
)
def test_a_ladder_that_cannot_be_climbed_is_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(UserError):
        Rungs(*arguments)  # type: ignore[arg-type]


def _result(quality: float, size: float = 1000, macs: int = 100, rest_s: float = 30.0) -> RungResult:
    return RungResult(1, quality, size, macs, rest_s)


def _place(result: RungResult, others: list[RungResult], direction: str = "maximize") -> int:
    return rank_at_rung(result, others, direction).better


def test_a_better_rank_comes_first_whatever_the_direction() -> None:
    others = [_result(0.9), _result(0.8), _result(0.6, 500)]
    assert rank_at_rung(_result(0.95), others, "maximize") == RungRank(better=0, count=4)
    assert rank_at_rung(_result(0.5), others, "maximize") == RungRank(better=3, count=4)
    assert _place(_result(0.75), others, "minimize") == 1
    assert _place(_result(0.55, 500), others, "minimize") == 0


def test_within_a_rank_what_adds_more_comes_first() -> None:
    front = [_result(0.9, 1000), _result(0.7, 100), _result(0.5, 2000)]
    assert _place(_result(0.88, 300), front) == 0
    assert _place(_result(0.8, 300), [*front, _result(0.81, 310)]) == 3


def test_within_a_rank_training_counts_that_is_left() -> None:
    """A place is by what the result adds for each second that it still asks for."""
    front = [_result(0.9, 1000), _result(0.7, 100), _result(0.5, 2000)]
    assert [_place(_result(0.88, 300, rest_s=rest), front) for rest in (30.0, 3000.0)] == [0, 2]
    assert _place(_result(0.95, 90, rest_s=3000.0), front) == 0  # of a better rank, whatever it takes


def test_sizes_count_by_ratio() -> None:
    front = [_result(0.9, 1e6), _result(0.8, 1e4), _result(0.6, 1e2)]
    scaled = [_result(one.quality, 10 * one.size_bytes, 10 * one.macs) for one in front]
    for number in range(3):
        others = [one for one in front if one is not front[number]]
        larger = [one for one in scaled if one is not scaled[number]]
        assert _place(front[number], others) == _place(scaled[number], larger)


def test_what_is_far_below_the_best_quality_adds_nothing_however_small() -> None:
    """Tiny broken models must not crowd out those that are nearly right."""
    tiny = [_result(0.1, 10), _result(0.2, 20), _result(0.3, 30)]
    good = [_result(0.9, 1000), _result(0.8, 500)]
    assert _place(_result(0.75, 300), [*tiny, *good]) < 3
    assert _place(_result(0.15, 15), [*tiny, *good]) == 2
    errors = [_result(9.0, 10), _result(1.0, 1000), _result(1.1, 500)]
    assert _place(_result(1.2, 300), errors, "minimize") < 3
    assert _place(_result(9.5, 5), errors, "minimize") == 2


def test_only_the_best_share_goes_on() -> None:
    rungs = Rungs(eta=3.0)
    for count in range(1, 30):
        going = [RungRank(better, count).goes_on(rungs) for better in range(count)]
        share = math.ceil(count / 3)
        assert going == [True] * share + [False] * (count - share)


def _others(*rests: float, on: int = 0) -> list[RungDecision]:
    """Dominated results that had so much training left, of which the first ``on`` train on."""
    return [RungDecision(_result(0.1, 9999, rest_s=rest), number < on) for number, rest in enumerate(rests)]


def test_those_who_train_on_take_no_more_than_their_share() -> None:
    """Three tenths of all that was left, at eta 5, however good what comes is."""
    best, rungs = _result(0.9, rest_s=10.0), Rungs(eta=5.0)
    assert reason_to_stop(best, _others(24.0), rungs, "maximize") is None
    assert reason_to_stop(best, _others(22.0), rungs, "maximize") == (
        "its training would take 10 s more, and 9.6 s are left to give"
    )
    assert reason_to_stop(best, _others(10.0, 47.0, on=1), rungs, "maximize") is None
    assert reason_to_stop(best, _others(10.0, 46.0, on=1), rungs, "maximize") is not None
    assert reason_to_stop(best, _others(90.0, 9.0, on=1), rungs, "maximize") is not None
    assert reason_to_stop(_result(0.05, 99999), _others(90.0), rungs, "maximize") == (
        "1 of 2 results there are better"
    )


@pytest.mark.parametrize("eta", [2.0, 3.0, 5.0])
def test_a_search_that_gets_better_and_better_does_not_take_all_training(eta: float) -> None:
    rng, judged = random.Random(0), [RungDecision(_result(0.1, rest_s=20.0), trains_on=True)]
    for number in range(60):
        result = _result(0.1 + 0.01 * number, rest_s=1 + 50 * rng.random())
        judged.append(
            RungDecision(result, reason_to_stop(result, judged, Rungs(eta=eta), "maximize") is None)
        )
    given, everything = (
        sum(one.result.rest_s for one in judged if one.trains_on or not only) for only in (True, False)
    )
    assert 0.9 * 1.5 / eta < given / everything <= 1.5 / eta


def test_equal_results_share_a_place() -> None:
    assert _place(_result(0.5), [_result(0.5), _result(0.5)]) == 0


def test_the_place_does_not_depend_on_the_order_of_the_others() -> None:
    rng = random.Random(0)
    others = [_result(rng.random(), 1 + rng.randrange(9)) for _ in range(30)]
    expected = rank_at_rung(_result(0.5, 4), others, "maximize")
    for _ in range(5):
        rng.shuffle(others)
        assert rank_at_rung(_result(0.5, 4), others, "maximize") == expected


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
def stopped(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    """Controls, then a trial whose learning rate ruins the model."""
    folder = tmp_path_factory.mktemp("rungs")
    study = _study(tiny_task, folder, Rungs(1, 1.0), trials=len(controls(SPACE, Budget(2))))
    _enqueue(study, 1, **{"recipe.lr": 1e-1, "recipe.optimizer": "rmsprop"})
    return resume(tiny_task, storage=f"sqlite:///{folder}/study.db", trials=4, space=SPACE)


def test_controls_are_judged_and_never_stopped(stopped: optuna.Study) -> None:
    assert [trial.state for trial in stopped.trials[:3]] == [TrialState.COMPLETE] * 3
    assert f"{trial_record.RUNG}1" in stopped.trials[1].user_attrs
    assert not any(name.startswith(trial_record.RUNG) for name in stopped.trials[0].user_attrs)


def test_a_dominated_trial_trains_no_further_and_has_its_file(stopped: optuna.Study, tiny_task: Task) -> None:
    trial, record = stopped.trials[3], StudyRecord(stopped).evaluation(3)
    assert trial.state == TrialState.COMPLETE
    assert record["stopped"]["reason"].startswith("rung 1: accuracy")
    assert (record["stopped"]["rung"], record["stopped"]["epochs"]) == (1, 1.0)
    assert StudyRecord(stopped).evaluation(1)["stopped"] is None
    better = stopped.trials[1].user_attrs[f"{trial_record.RUNG}1"]
    assert [one.trains_on for one in StudyRecord(stopped).rung_results(1, without=-1)] == [True, False]
    assert trial.user_attrs[f"{trial_record.RUNG}1"]["quality"] < better["quality"]
    total = StudyRecord(stopped).ledger()
    assert (total.rung_stops, total.preview_stops, total.saved_epochs) == (1, 0, 1.0)
    assert total.train_s > StudyRecord(stopped).evaluation(1)["values"]["train_s"] > 0
    assert total.judging_s > 0


def test_where_a_trial_is_named_its_stop_is(stopped: optuna.Study) -> None:
    text = f"{StudyRecord(stopped).evaluation(3)['notation']} [stopped after 1 epochs]"
    assert pipeline_text(StudyRecord(stopped).evaluation(3), "notation") == text
    shown = io.StringIO()
    with trial_progress(Console(file=shown), total=4) as tell:
        tell(stopped, stopped.trials[3])
    assert re.search(rf"\[4/4\] trial 3 {re.escape(text)}: \S+ accuracy ", shown.getvalue())


def test_what_a_rung_stopped_is_exported_as_such(
    stopped: optuna.Study, tiny_task: Task, tmp_path: Path
) -> None:
    export_trial(stopped, 3, tmp_path / "out", tiny_task)
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["stopped"] == StudyRecord(stopped).evaluation(3)["stopped"]
    assert "stopped after 1 epochs (rung 1: accuracy" in (tmp_path / "out" / "card.md").read_text()


def test_what_a_rung_stopped_is_stopped_there_again_when_it_is_confirmed(
    stopped: optuna.Study, tiny_task: Task
) -> None:
    """Shown with the trial's own seed: the file is the same."""
    record = StudyRecord(stopped).evaluation(3)
    blueprint = Blueprint.of(record, SPACE.operations)
    assert blueprint.stopped == EarlyStop(**record["stopped"])
    made: list[str | None] = []
    threads = StudyRecord(stopped).specification.train_threads
    with training_threads(threads), evaluator_of(stopped, tiny_task) as evaluator:
        before = dataclasses.replace(evaluator, seed=evaluator.seed - 1)
        for given in (blueprint, dataclasses.replace(blueprint, stopped=None)):
            runs = retrain({3: given}, before, 1, lambda done: None)
            path = runs[3][0].path  # its learning rate may ruin it altogether
            made.append(path and hashlib.sha256(path.read_bytes()).hexdigest())
    assert made[0] == record["artifact"]["sha256"] != made[1]


def test_results_of_trials_that_were_run_again_do_not_count(stopped: optuna.Study) -> None:
    """State is in the storage alone: what a killed trial stored is its re-run's to store again."""
    before = StudyRecord(stopped).rung_results(1, without=-1)
    dead = optuna.trial.create_trial(
        state=TrialState.FAIL, user_attrs={f"{trial_record.RUNG}1": RungDecision(_result(1.0, 1)).to_dict()}
    )
    stopped.add_trial(dead)
    assert len(StudyRecord(stopped).rung_results(1, without=-1)) == len(before) + 1
    retry = {"petra:retry": {"of": len(stopped.trials) - 1, "index": 4, "attempt": 1}}
    stopped.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, system_attrs=retry))
    assert StudyRecord(stopped).rung_results(1, without=-1) == before


@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_survivor_ends_where_it_would_without_rungs(tiny_task: Task, tmp_path: Path, mode: Mode) -> None:
    # The first control that trains: what comes from the cache is not judged again.
    number = 1 if mode == "pretrained" else 0
    found = []
    for name, rungs in (("with", Rungs(1, 0.3, levels=None)), ("without", None)):
        (tmp_path / name).mkdir()
        study = _study(tiny_task, tmp_path / name, rungs, trials=number + 1, mode=mode)
        record = StudyRecord(study).evaluation(number)
        rebuilt = next((tmp_path / name).rglob(record["rebuild"]["id"])).read_bytes()
        found.append((record["artifact"]["sha256"], hashlib.sha256(rebuilt).hexdigest()))
        judged = [key for key in study.trials[number].user_attrs if key.startswith(trial_record.RUNG)]
        assert len(judged) == (3 if rungs else 0)
    assert found[0] == found[1]
