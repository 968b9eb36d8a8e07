"""Tuning studies of a tiny workload, whose settings are measured by a formula."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from support import tiny_workload
from support.children import kill_this_process, run_in_child
from support.serving import Served, fake_servers
from support.small_task import data

from petra_optuna.database import open_storage
from petra_optuna.edgetune import (
    TuningBudget,
    TuningObjective,
    Workload,
    counts_of,
    export_tuned,
    fetch_file,
    record_of,
    result_lines,
    result_of,
    resume_tuning,
    tune,
)
from petra_optuna.errors import StudyError, UserError
from petra_optuna.inference import EdgeDevice
from petra_optuna.measurement.energy import RAPL
from petra_optuna.samplers import finished_trials
from petra_optuna.study import why_no_file

ESTIMATOR = "cpu-time:6"
ONE_RUNG = TuningBudget("epoch", min_epochs=1, max_epochs=1)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return tiny_workload.make()


@pytest.fixture(scope="module", autouse=True)
def searches() -> Iterator[list[Path]]:
    """Files of the nested searches."""
    with fake_servers(Served()) as files, tiny_workload.quick_files():
        yield files


Tune = Callable[..., optuna.Study]


@pytest.fixture
def run(workload: Workload, tmp_path: Path) -> Tune:
    """A short study of one rung in a database of the test's own."""

    def tuned(**changes: Any) -> optuna.Study:
        settings: dict[str, Any] = {
            "trials": 2,
            "budget": ONE_RUNG,
            "device": EdgeDevice("board", cores=1),
            "storage": tmp_path / "study.db",
            "algorithm": "random",
            "max_batch": 8,
        }
        return tune(workload, **settings | changes)

    return tuned


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tuned')}/study.db"


@pytest.fixture(scope="module")
def study(workload: Workload, url: str, searches: list[Path]) -> optuna.Study:
    """BOHB over both architectures, with pruned trials."""
    device = EdgeDevice("board", cores=1)
    return tune(
        workload,
        objective="quality",
        budget=tiny_workload.BUDGET,
        device=device,
        trials=9,
        storage=url,
        max_batch=8,
        seed=1,
    )


def quality_of_file(file: Path) -> float:
    """Accuracy on the selection split, by onnxruntime alone."""
    images, classes = (tensor.numpy() for tensor in data(128, 1, tiny_workload.NOISE).tensors)
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: images})
    return float((scores.argmax(1) == classes).mean())


def test_the_best_trial_has_a_file_of_its_quality_and_a_recommendation(study, url, tmp_path) -> None:
    result = result_of(study)
    assert result.trial == study.best_trial.number
    fetch_file(result, url, tmp_path / "model.onnx")
    assert quality_of_file(tmp_path / "model.onnx") == pytest.approx(result.record.quality, abs=1e-6)
    assert result.record.quality == result.value > 0.5
    assert result.record.size_bytes == (tmp_path / "model.onnx").stat().st_size
    assert (set(result.model), set(result.training)) == ({"width"}, {"batch_size", "learning_rate"})
    answer = result.recommendation
    assert answer.device.name == "board"
    assert answer.setting.batch > 1
    assert answer.gain > 1


def test_trials_stop_at_rungs_or_go_to_the_end_and_only_these_have_files(study) -> None:
    budget = tiny_workload.BUDGET
    states = set()
    for trial in study.trials:
        record = record_of(trial)
        states.add(trial.state)
        iterations = [rung.iteration for rung in record.rungs]
        assert iterations == list(budget.rungs[: len(iterations)])
        assert trial.intermediate_values == {rung.iteration: rung.value for rung in record.rungs}
        if trial.state == TrialState.PRUNED:
            assert len(iterations) < len(budget.rungs)
            assert (record.artifact_id, record.quality, record.size_bytes) == (None, None, None)
            assert why_no_file(trial) == f"Hyperband ended it at iteration {iterations[-1]} of {budget.last}"
        else:
            assert trial.state == TrialState.COMPLETE
            assert iterations[-1] == budget.last
            assert record.artifact_id
        epochs = itertools.accumulate(
            budget.segment(before, now).epochs for before, now in itertools.pairwise((None, *iterations))
        )
        assert [rung.epochs for rung in record.rungs] == list(epochs)
        assert record.rungs[0].train_s <= record.rungs[-1].train_s <= record.trial_s
    assert states == {TrialState.PRUNED, TrialState.COMPLETE}


def test_pruned_trials_are_no_results(study) -> None:
    pruned = next(trial for trial in study.trials if trial.state == TrialState.PRUNED)
    with pytest.raises(StudyError, match=f"trial {pruned.number} of study .* has no file"):
        result_of(study, pruned.number)
    with pytest.raises(StudyError, match="has no trial 99; it has 9 trials"):
        result_of(study, 99)


def test_each_architecture_is_searched_once_and_a_second_study_searches_nothing(
    study, url, workload, searches
) -> None:
    architectures = {trial.params["width"] for trial in study.trials}
    assert counts_of(study).searches == len(architectures) == 2
    before = len(searches)
    device = EdgeDevice("board", cores=1)
    settings = {"budget": ONE_RUNG, "device": device, "storage": url, "max_batch": 8}
    second = tune(workload, trials=3, name="second", algorithm="random", **settings)
    counts = counts_of(second)
    assert (counts.searches, counts.waits, counts.waited_s, counts.restarts) == (0, 0, 0.0, 0)
    assert counts.hits > 0
    assert len(searches) == before
    assert result_of(second).recommendation.from_history


def test_the_objective_is_what_the_record_says(run, tmp_path) -> None:
    study = run(inferences=500)
    for trial in study.trials:
        record = record_of(trial)
        inference_s = 500 * record.recommendation.seconds_per_sample
        assert trial.value == pytest.approx((record.rungs[-1].train_s + inference_s) / record.quality)
    blind = run(name="blind", inference_objective=None)
    for trial in blind.trials:
        record = record_of(trial)
        assert record.recommendation is None
        assert trial.value == pytest.approx(record.rungs[-1].train_s / record.quality)
    assert not any("Inference server" in str(line) for line in lines_of(blind))


def lines_of(study: optuna.Study) -> list[str]:
    lines = []
    for part in result_lines(result_of(study), counts_of(study)):
        columns = getattr(part, "columns", [])
        cells = [str(cell) for column in columns for cell in column.cells]
        lines.append(" ".join(cells) if columns else str(part))
    return lines


def test_the_seed_decides_the_parameters_and_the_weights(run) -> None:
    runs = [run(name=str(index), seed=seed, trials=2) for index, seed in enumerate((4, 4, 5))]
    params = [[trial.params for trial in study.trials] for study in runs]
    qualities = [[record_of(trial).quality for trial in study.trials] for study in runs]
    assert params[0] == params[1] != params[2]
    assert qualities[0] == qualities[1]


def test_the_same_study_goes_on_and_another_one_of_its_name_is_refused(run, workload, tmp_path) -> None:
    run(trials=1)
    assert len(run(trials=2).trials) == 2
    assert len(run(trials=2).trials) == 2
    for change, told in (
        ({"seed": 7}, "seed was 0, now 7"),
        ({"inferences": 3}, "inferences was 10000, now 3"),
        ({"budget": "data"}, 'budget was {"kind": "epoch"'),
        ({"space": {"width": CategoricalDistribution((2,))}}, "space was "),
    ):
        with pytest.raises(StudyError, match="exists with another specification") as caught:
            run(**change)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match="give another `name`, or continue it with `resume`"):
        run(algorithm="tpe")


def test_a_study_that_is_none_of_tuning_keeps_its_name(run, tmp_path) -> None:
    optuna.create_study(storage=open_storage(tmp_path / "study.db"), study_name="theirs")
    with pytest.raises(StudyError, match="'theirs' exists and is no tuning study"):
        run(name="theirs")


def test_a_resumed_study_takes_from_the_stored_one_what_is_not_given(run, workload, tmp_path) -> None:
    run(trials=1)
    storage = tmp_path / "study.db"
    assert len(resume_tuning(workload, storage=storage).trials) == 1
    study = resume_tuning(workload, storage=storage, trials=3)
    assert len(study.trials) == 3
    assert len({trial.params["learning_rate"] for trial in study.trials}) == 3
    changed = dataclasses.replace(workload.task, train=workload.task.selection)
    with pytest.raises(StudyError, match="workload's model or data are not those of study 'tune-tiny'"):
        resume_tuning(dataclasses.replace(workload, task=changed), storage=storage, trials=4)


@pytest.mark.parametrize("algorithm", ["grid", "petra", "bohb"])
def test_a_trial_that_was_interrupted_runs_again_with_its_parameters(
    run, workload, tmp_path, monkeypatch, algorithm
) -> None:
    space = {"width": CategoricalDistribution((2,)), "batch_size": IntDistribution(16, 64, log=True)}
    space["learning_rate"] = CategoricalDistribution((0.05,))
    with monkeypatch.context() as patch:
        evaluated = itertools.count()
        patch.setattr(
            "petra_optuna.edgetune.trial.quality_of",
            lambda *_: interrupt() if next(evaluated) == 1 else 0.5,
        )
        with pytest.raises(KeyboardInterrupt):
            run(trials=3, algorithm=algorithm, space=space)
    study = resume_tuning(workload, storage=tmp_path / "study.db")
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[2].params == study.trials[1].params
    assert len(finished_trials(study)) == 3
    if algorithm == "grid":
        assert {trial.params["batch_size"] for trial in finished_trials(study)} == {16, 32, 64}


def test_a_killed_run_goes_on_and_its_trial_runs_again(run, workload, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        evaluated = itertools.count()
        patch.setattr(
            "petra_optuna.edgetune.trial.quality_of",
            lambda *_: kill_this_process() if next(evaluated) == 1 else 0.5,
        )
        assert run_in_child(lambda: run(trials=3)) == -signal.SIGKILL
    study = resume_tuning(workload, storage=tmp_path / "study.db")
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[2].params == study.trials[1].params != study.trials[3].params
    assert counts_of(study).searches >= 1  # that of the first trial, whose run was killed
    assert record_of(study.trials[2]).artifact_id


def interrupt() -> float:
    raise KeyboardInterrupt


def test_a_target_ends_the_run_and_is_the_studys(run, workload, tmp_path) -> None:
    study = run(trials=3, target_quality=0.0)
    assert len(study.trials) == 1
    assert len(resume_tuning(workload, storage=tmp_path / "study.db").trials) == 1
    assert len(run(trials=2, target_quality=1.1).trials) == 2


def test_a_grid_is_visited_whole(run) -> None:
    space = {
        "batch_size": IntDistribution(16, 32, log=True),
        "learning_rate": CategoricalDistribution((0.05,)),
    }
    study = run(trials=None, algorithm="grid", space=space, inference_objective=None)
    points = [(trial.params["width"], trial.params["batch_size"]) for trial in study.trials]
    assert sorted(points) == [(2, 16), (2, 32), (4, 16), (4, 32)]


def test_groups_are_drawn_in_either_search(run, tmp_path) -> None:
    study = run(trials=2, groups={"random": ("learning_rate", "batch")})
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2


MANY = {"batch_size": IntDistribution(1, 1000), "train_threads": IntDistribution(1, 100)}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a grid that is not meant": (
        {"algorithm": "grid", "trials": None, "space": MANY},
        "the grid has 1000000 points; give `trials`",
    ),
    "no end": ({"trials": None}, "a run needs an end"),
    "algorithm": ({"algorithm": "anneal"}, "unknown search algorithm 'anneal'"),
    "nested algorithm": ({"inference_algorithm": "anneal"}, "unknown search algorithm 'anneal'"),
    "objective": ({"objective": "speed"}, "unknown tuning objective 'speed'"),
    "inference objective": ({"inference_objective": "speed"}, "unknown inference objective 'speed'"),
    "device": ({"device": "abacus"}, "unknown device 'abacus'"),
    "budget": ({"budget": "both"}, "got 'both'"),
    "parameter": ({"space": {"depth": IntDistribution(1, 2)}}, "parameter 'depth' of the space is unknown"),
    "group": ({"groups": {"random": ("depth",)}}, "parameter 'depth' of the group of random"),
    "group's algorithm": ({"groups": {"anneal": ("width",)}}, "unknown search algorithm 'anneal'"),
    "nested group's algorithm": ({"groups": {"anneal": ("cores",)}}, "unknown search algorithm 'anneal'"),
    "two groups": ({"groups": {"random": ("width",), "gp": ("width",)}}, "draw parameter 'width'"),
    "batch": ({"max_batch": 0}, "`max_batch` must be at least 1, got 0"),
    "threads": ({"train_threads": 0}, "`train_threads` must be at least 1, got 0"),
    "inferences": ({"inferences": -1}, "`inferences` must be at least 0, got -1"),
    "estimator": (
        {"inference_objective": "energy", "energy_estimator": "guess"},
        "an energy estimator is cpu-time:WATTS",
    ),
    "energy of serving": (
        {"objective": "energy", "energy_estimator": ESTIMATOR},
        "give `inference_objective` energy, or none",
    ),
    "limit": ({"limits": ["speed<=1"]}, "limit 'speed<=1' bounds no figure of a trial"),
    "limit of serving": (
        {"limits": ["inference_s<=1"], "inference_objective": None},
        "limit inference_s<=1 bounds serving, which nothing tunes",
    ),
    "limit of serving's energy": (
        {"limits": ["inference_j<=1"], "energy_estimator": ESTIMATOR},
        "limit inference_j<=1 counts the energy of serving too",
    ),
    "name of a built-in objective": (
        {"objective": TuningObjective("runtime", "maximize", lambda figures: 1.0)},
        "'runtime' is the name of a built-in objective",
    ),
    "name of a nested search": ({"name": "inference-1"}, "names such as 'inference-1' are those of nested"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_one_line_before_there_is_a_study(run, tmp_path, case) -> None:
    changes, told = REFUSED[case]
    with pytest.raises(UserError) as caught:
        run(**changes)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    database = tmp_path / "study.db"
    assert not database.exists() or optuna.get_all_study_names(open_storage(database)) == []


def test_a_trial_beyond_a_limit_is_no_result_and_optuna_knows_by_how_much(run, workload, tmp_path) -> None:
    """Of the two widths the narrow one has the lower, better value."""
    narrow = TuningObjective("narrow", "minimize", lambda figures: figures.quality)
    space = {"batch_size": CategoricalDistribution((32,)), "learning_rate": CategoricalDistribution((0.05,))}
    settings = {"algorithm": "grid", "trials": None, "space": space, "inference_objective": None}
    free = result_of(run(name="free", objective=narrow, **settings))
    others = [record_of(trial).quality for trial in run(name="free", objective=narrow, **settings).trials]
    limit = f"quality>={(min(others) + max(others)) / 2:.12g}"
    study = run(objective=narrow, limits=[limit], **settings)
    kept = result_of(study)
    assert free.record.quality == min(others) < max(others) == kept.record.quality
    excesses = sorted(trial.constraints[limit] for trial in study.trials)
    assert excesses == pytest.approx([(min(others) - max(others)) / 2, (max(others) - min(others)) / 2])
    assert kept.to_dict()["limits"] == [limit]
    assert f"Within {limit}" in lines_of(study)
    with pytest.raises(StudyError, match=r"exists with another specification .*limits was"):
        run(objective=narrow, **settings)
    assert (
        len(
            resume_tuning(
                workload, storage=tmp_path / "study.db", name=study.study_name, objective=narrow, trials=2
            ).trials
        )
        == 2
    )
    with pytest.raises(StudyError, match=r"no completed trial of study 'none' is within quality>=2"):
        result_of(run(name="none", objective=narrow, limits=["quality>=2"], **settings))


def test_trials_that_end_early_are_held_to_the_limits_too(workload, tmp_path) -> None:
    study = tune(
        workload,
        objective="quality",
        inference_objective=None,
        budget=tiny_workload.BUDGET,
        trials=9,
        limits=["train_s<=0"],
        storage=tmp_path / "study.db",
        seed=1,
    )
    ended = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert ended
    assert all(trial.constraints["train_s<=0"] > 0 for trial in study.trials)


@pytest.mark.skipif((RAPL / "intel-rapl:0").exists(), reason="this machine counts energy")
@pytest.mark.parametrize(
    "change",
    [
        {"inference_objective": "energy", "objective": "energy"},
        {"inference_objective": "energy"},
        {"limits": ["train_j<=1"]},
    ],
)
def test_energy_that_nothing_counts_is_refused_before_there_is_a_study(run, tmp_path, change) -> None:
    with pytest.raises(UserError, match=r"energy cannot be an objective here: not measured.*`energy_estim"):
        run(**change)
    assert not (tmp_path / "study.db").exists()


def test_estimated_energies_add_up_and_say_so_wherever_they_are_shown(run) -> None:
    study = run(objective="energy", inference_objective="energy", energy_estimator=ESTIMATOR, inferences=100)
    for trial in study.trials:
        record = record_of(trial)
        serving_j = 100 * record.recommendation.expected["energy_j"].value
        assert record.train_j > 0
        assert trial.value == pytest.approx((record.train_j + serving_j) / record.quality)
    result = result_of(study)
    told = result.to_dict()
    assert told["training"]["energy_source"].startswith("estimated")
    assert told["inference"]["energy_source"].startswith("estimated")
    with_energy = [line for line in lines_of(study) if "J" in line or "Best trial" in line]
    assert len(with_energy) == 4
    assert all("estimated" in line for line in with_energy)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda figures: float("nan"), "MeasurementFailed: objective 'mine' is nan"),
        (lambda figures: figures.quality / 0, "MeasurementFailed: objective 'mine': ZeroDivisionError"),
    ],
)
def test_an_objective_that_gives_no_number_fails_the_trial_with_its_reason(run, function, reason) -> None:
    study = run(objective=TuningObjective("mine", "maximize", function), trials=1)
    assert study.trials[0].state == TrialState.FAIL
    assert why_no_file(study.trials[0]).startswith(reason)
    with pytest.raises(StudyError, match=r"has no completed trial \(trial 0: MeasurementFailed: objective"):
        result_of(study)


def test_an_objective_of_the_users_is_given_again_on_resume(run, workload, tmp_path) -> None:
    mine = TuningObjective("mine", "maximize", lambda figures: figures.quality / figures.train_s)
    study = run(objective=mine, trials=1)
    assert study.metric_names == ["mine"]
    assert study.direction.name == "MAXIMIZE"
    storage = tmp_path / "study.db"
    with pytest.raises(UserError, match="unknown tuning objective 'mine'"):
        resume_tuning(workload, storage=storage, trials=2)
    other = dataclasses.replace(mine, name="other")
    with pytest.raises(StudyError, match="has the objective 'mine', not 'other'"):
        resume_tuning(workload, storage=storage, trials=2, objective=other)
    assert len(resume_tuning(workload, storage=storage, trials=2, objective=mine).trials) == 2


def test_the_threads_of_training_may_be_tuned(run) -> None:
    space = {"train_threads": IntDistribution(1, 2)}
    study = run(space=space, trials=4, inference_objective=None)
    assert {trial.params["train_threads"] for trial in study.trials} == {1, 2}
    assert result_of(study).training["train_threads"] in (1, 2)


def test_an_architecture_that_the_device_cannot_serve_fails_with_the_reason(run) -> None:
    with fake_servers(Served(), fails=lambda setting: True):
        study = run(device=EdgeDevice("toaster", cores=1), trials=1)
    assert study.trials[0].state == TrialState.FAIL
    assert "no setting could be measured" in why_no_file(study.trials[0])
    with pytest.raises(StudyError, match=r"has no completed trial \(trial 0: .* does not fit"):
        result_of(study)


def test_the_folder_of_the_best_model_serves_it_as_recommended(study, url, workload, tmp_path) -> None:
    """``export_tuned`` itself compares file and script with what the trial stored."""
    result = result_of(study)
    out = export_tuned(result, workload.task, url, tmp_path / "out")
    names = {path.name for path in out.iterdir()}
    assert names == {"model.onnx", "preprocess.json", "run.py", "deployment.json", "recipe.json"}
    assert json.loads((out / "deployment.json").read_text()) == result.recommendation.to_dict()
    assert json.loads((out / "recipe.json").read_text())["model"] == dict(result.model)
    lied = dataclasses.replace(result, record=dataclasses.replace(result.record, quality=0.1))
    with pytest.raises(StudyError, match=r"the trial stored 0\.1; nothing was exported"):
        export_tuned(lied, workload.task, url, tmp_path / "lied")
    assert not (tmp_path / "lied").exists()
