"""A whole study on a tiny task: real files, real measurements, a real database."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from torch import nn

from petra_optuna.database import open_storage
from petra_optuna.errors import OperationFailed, StudyError, UserError
from petra_optuna.evaluation import Budget, Limits
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.operations import Half, Prune, QuantizeStatic, Train
from petra_optuna.pipeline import Applied, Operation, Pipeline, SearchSpace, encode
from petra_optuna.results import (
    as_csv,
    as_html,
    as_json,
    export_trial,
    front,
    publish,
    study_hypervolume,
)
from petra_optuna.results.run_script import run_script
from petra_optuna.study import Stop, StudyRecord, TrialRecord, optimize, resume, trial_record
from petra_optuna.study import record as attributes
from petra_optuna.tasks import Task

BUDGET = Budget(epochs=1)
TRIALS = 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


def _run(task: Task, home: Path, trials: int = TRIALS, **changes: Any) -> optuna.Study:
    settings: dict[str, Any] = {
        "budget": BUDGET,
        "name": "tiny",
        "seed": 3,
        "cache": home / "cache",
    } | changes
    return optimize(task, trials=trials, storage=f"sqlite:///{home}/study.db", **settings)


@pytest.fixture(scope="module")
def study(tiny_task: Task, home: Path) -> optuna.Study:
    return _run(tiny_task, home)


def _notation(study: optuna.Study, number: int) -> str:
    return str(StudyRecord(study).evaluation(number)["notation"])


def test_the_original_comes_first_and_the_controls_follow(study: optuna.Study) -> None:
    assert [_notation(study, number) for number in range(5)] == ["original", "Tr", "FP16", "PTQ", "Pr-Tr-PTQ"]
    assert len(study.trials) == TRIALS


def test_the_originals_trial_repeats_the_baseline(study: optuna.Study) -> None:
    frozen = study.user_attrs[attributes.BASELINE]["values"]
    values = StudyRecord(study).evaluation(0)["values"]
    assert values["accuracy"] == frozen["accuracy"]
    assert values["size_bytes"] == frozen["size_bytes"]
    # Measured quickly and beside other tests: only another unit or another file would be off by so much.
    assert 1 / 3 < values["latency_ms"] / frozen["latency_ms"] < 3


def test_values_are_named_and_directed(study: optuna.Study) -> None:
    assert study.metric_names == ["accuracy", "latency_ms", "throughput_per_s", "size_bytes"]
    assert [direction.name for direction in study.directions] == [
        "MAXIMIZE",
        "MINIMIZE",
        "MAXIMIZE",
        "MINIMIZE",
    ]


def test_a_better_model_dominates(study: optuna.Study) -> None:
    """The public PETRA code lost this sign."""
    frozen = study.user_attrs[attributes.BASELINE]["values"]
    ideal = [1.0, frozen["latency_ms"] / 100, frozen["throughput_per_s"] * 100, frozen["size_bytes"] / 100]
    copy = optuna.create_study(directions=study.directions)
    for name, value in study.user_attrs.items():
        copy.set_user_attr(name, value)
    for trial in study.get_trials(deepcopy=True):
        copy.add_trial(trial)
    before = study_hypervolume(copy)
    record = {**StudyRecord(study).evaluation(0), "description": "ideal"}
    copy.add_trial(optuna.create_trial(values=ideal, user_attrs={trial_record.EVALUATION: record}))
    assert [row.pipeline for row in front(copy).rows] == ["ideal"]
    assert study_hypervolume(copy) > before


def test_the_front_names_every_value_and_its_change(study: optuna.Study) -> None:
    found = json.loads(as_json(front(study)))
    assert set(found) == {
        *("study", "directions", "baseline", "front", "off_front", "region", "violations_by_limit", "repairs")
    }
    names = ["accuracy", "latency_ms", "throughput_per_s", "size_bytes"]
    assert list(found["directions"]) == list(found["baseline"]) == names
    for row in found["front"]:
        fields = {"trial", "pipeline", "values", "change_percent", "intervals", "ties", "off_front"}
        assert set(row) == fields
        for name in names:
            ratio = row["values"][name] / found["baseline"][name]
            assert row["change_percent"][name] == pytest.approx(100 * (ratio - 1))
    smallest = min(row["values"]["size_bytes"] for row in found["front"])
    assert smallest < 0.5 * found["baseline"]["size_bytes"]
    assert as_csv(front(study)).count("\n") == 1 + len(found["front"])
    assert "plotly" in as_html(front(study))


def test_the_dashboard_gets_one_figure_and_one_note_however_often(study: optuna.Study) -> None:
    keys: list[set[str]] = []
    for _ in range(2):
        publish(study)
        keys.append(set(study._storage.get_study_system_attrs(study._study_id)))
    assert any("petra-front" in key for key in keys[0])
    assert any("note" in key for key in keys[0])
    assert keys[0] == keys[1]


def test_a_run_with_the_same_specification_continues(
    tiny_task: Task, study: optuna.Study, home: Path
) -> None:
    again = _run(tiny_task, home)
    assert len(again.trials) == TRIALS
    assert len(resume(tiny_task, storage=f"sqlite:///{home}/study.db").trials) == TRIALS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"budget": Budget(epochs=2)}, "budget.epochs: 1 != 2"),
        ({"seed": 4}, "seed: 3 != 4"),
        ({"limits": Limits(size_bytes=1e6)}, "limits.size_bytes: None != 1000000.0"),
    ],
)
def test_a_run_with_another_specification_is_refused(
    tiny_task: Task, study: optuna.Study, home: Path, change: dict[str, Any], named: str
) -> None:
    """The line names what differs, and nothing else of the records."""
    with pytest.raises(StudyError, match=re.escape(f"exists with another specification ({named});")):
        _run(tiny_task, home, **change)
    assert len(study.get_trials()) == TRIALS


def test_a_task_with_other_weights_is_refused(tiny_task: Task, study: optuna.Study, home: Path) -> None:
    with pytest.raises(StudyError, match="fingerprint"):
        resume(dataclasses.replace(tiny_task, fingerprint="other"), storage=f"sqlite:///{home}/study.db")


def test_a_run_without_an_end_is_refused(tiny_task: Task, home: Path) -> None:
    with pytest.raises(UserError, match="`trials` must be at least 1"):
        _run(tiny_task, home, trials=0)


def test_a_target_that_the_study_does_not_have_is_refused_before_anything_is_stored(
    tiny_task: Task, study: optuna.Study, home: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{home}/study.db"
    before = StudyRecord(study).stop
    with pytest.raises(UserError, match="the study has no objective 'nope'; it has accuracy, latency_ms"):
        resume(tiny_task, storage=url, stop=Stop(targets={"nope": 1.0}))
    assert StudyRecord(study).stop == before
    new = f"sqlite:///{tmp_path}/new.db"
    with pytest.raises(UserError, match="the study has no objective ''"):
        optimize(tiny_task, storage=new, stop=Stop(targets={"": 1.0}), budget=BUDGET)
    assert not (tmp_path / "new.db").exists()


def test_helpers_are_refused_before_anything_is_stored_where_they_cannot_build_the_task(
    tiny_task: Task, home: Path
) -> None:
    with pytest.raises(UserError, match="workers cannot build task 'tiny' by themselves"):
        _run(tiny_task, home, name="other", workers=2)
    assert optuna.get_all_study_names(f"sqlite:///{home}/study.db") == ["tiny"]


@pytest.mark.parametrize("number", [0, 3, 4])
def test_an_export_runs_without_torch_and_scores_what_was_stored(
    tiny_task: Task, study: optuna.Study, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "exported"
    done = export_trial(study, number, out, tiny_task)
    assert {path.name for path in out.iterdir()} == {
        "model.onnx", "preprocess.json", "run.py", "card.md", "recipe.json", "rebuild",
    }  # fmt: skip
    assert {path.name for path in (out / "rebuild").iterdir()} == {"structure.json", "weights.safetensors"}
    assert done.quality == pytest.approx(done.stored, abs=1 / len(tiny_task.selection))
    batches = list(tiny_task.selection.batches(batch_size=64))
    arrays = [next(iter(to_feeds(inputs).values())) for inputs, _ in batches]
    np.save(tmp_path / "inputs.npy", np.concatenate(arrays))
    guard = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    )
    command = [sys.executable, "-c", guard, str(out / "run.py"), str(tmp_path / "inputs.npy")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    targets = [tiny_task.labels[int(target)] for _, batch in batches for target in batch]
    accuracy = float(np.mean([a == b for a, b in zip(printed, targets, strict=True)]))
    assert accuracy == pytest.approx(StudyRecord(study).evaluation(number)["values"]["accuracy"], abs=1e-9)
    card = (out / "card.md").read_text()
    assert f"trial {number} of study" in card
    assert "Objectives of the search: accuracy (maximize), latency_ms (minimize)," in card
    assert "Its limits: none." in card
    assert "$" not in card


@pytest.mark.parametrize(("shape", "printed"), [((2,), ["no", "yes"]), ((2, 1), ["no", "yes"])])
def test_the_exported_script_reads_a_single_logit_by_its_sign(
    tmp_path: Path, shape: tuple[int, ...], printed: list[str]
) -> None:
    node = helper.make_node("Reshape", ["input", "shape"], ["output"])
    size = numpy_helper.from_array(np.array([-1, *shape[1:]], dtype=np.int64), "shape")
    graph = helper.make_graph(
        [node],
        "logits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [size],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    save(model, tmp_path / "model.onnx")
    (tmp_path / "preprocess.json").write_text(json.dumps({"labels": ["no", "yes"]}))
    np.save(tmp_path / "inputs.npy", np.array([[-3.0], [5.0]], dtype=np.float32))
    (tmp_path / "run.py").write_text(run_script("onnxruntime", "cpu"))
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "inputs.npy")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == printed


def test_an_export_never_overwrites(tiny_task: Task, study: optuna.Study, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(StudyError, match="not an empty folder"):
        export_trial(study, 0, tmp_path / "mine", tiny_task)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_trial_that_is_not_there_cannot_be_exported(
    tiny_task: Task, study: optuna.Study, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=f"has no trial 99; its trials are 0 to {TRIALS - 1}"):
        export_trial(study, 99, tmp_path / "out", tiny_task)
    assert not (tmp_path / "out").exists()


def test_a_damaged_artifact_is_not_exported(
    tiny_task: Task, study: optuna.Study, home: Path, tmp_path: Path
) -> None:
    stored = home / "artifacts" / StudyRecord(study).evaluation(2)["artifact"]["id"]
    data = stored.read_bytes()
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        with pytest.raises(StudyError, match="it is damaged"):
            export_trial(study, 2, tmp_path / "out", tiny_task)
    finally:
        stored.write_bytes(data)
    assert not (tmp_path / "out").exists()


def test_a_database_on_a_full_disk_is_one_clear_error_and_loses_nothing(
    tiny_task: Task, home: Path, tmp_path: Path
) -> None:
    """SQLite refuses to grow: the very error of a full disk."""
    space = SearchSpace((Prune,), (Half, QuantizeStatic), max_length=1)
    study = _run(tiny_task, tmp_path, trials=1, space=space)
    before = study.get_trials()[0]
    url = f"sqlite:///{tmp_path}/study.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("petra_optuna.database.storage._relax_synchronous", _no_growth)
        with pytest.raises(StudyError, match=r"cannot be used \(database or disk is full\); make room"):
            resume(tiny_task, storage=url, trials=3)
    again = resume(tiny_task, storage=url, trials=3)
    assert again.get_trials()[0] == before
    # Where there was room to store how the trial ended, it is run again. Otherwise it still counts as
    # running, since this very process lives on.
    states = [trial.state for trial in again.get_trials()]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.RUNNING) == 3
    failed = [trial for trial in again.get_trials() if trial.state == TrialState.FAIL]
    assert all(TrialRecord(trial).failure for trial in failed)


def _no_growth(connection: Any, _record: object) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")


@dataclasses.dataclass(frozen=True)
class Sometimes(Operation):
    """Fails above one half."""

    name = "sometimes"
    code = "Some"
    kind = "structure"
    share: Annotated[float, FloatDistribution(0.0, 1.0)] = 0.0

    def apply(self, model: nn.Module, context: Any) -> Applied[nn.Module]:
        if self.share > 0.5:
            raise OperationFailed("the share is above one half")
        return Prune(removed=0.5, scope="local").apply(model, context)


def test_a_failing_trial_is_a_row_with_its_reason_and_the_study_goes_on(
    tiny_task: Task, tmp_path: Path
) -> None:
    space = SearchSpace((Train, Sometimes), (QuantizeStatic,), max_length=1)
    bad, good = (encode(Pipeline((Sometimes(share=share),)), space) for share in (0.9, 0.1))
    sampler = _Enqueue([bad, good])
    study = _run(tiny_task, tmp_path, trials=5, space=space, sampler=sampler)
    states = {trial.number: trial.state for trial in study.trials}
    failed = [number for number, state in states.items() if state == TrialState.FAIL]
    assert len(failed) == 1
    reason = study.trials[failed[0]].user_attrs[trial_record.FAILURE]
    assert reason == "OperationFailed: the share is above one half"
    assert states[failed[0] + 1] == TrialState.COMPLETE
    with pytest.raises(StudyError, match="is FAIL and has no file: OperationFailed: the share"):
        export_trial(study, failed[0], tmp_path / "out", tiny_task)


class _Enqueue(optuna.samplers.BaseSampler):
    """Any Optuna sampler serves: this one replays a list, then falls back to random."""

    def __init__(self, plans: list[dict[str, Any]]) -> None:
        self._plans = iter(plans)
        self._random = optuna.samplers.RandomSampler(seed=0)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        self._plan = {} if trial.system_attrs.get("fixed_params") else next(self._plans, {})
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        if name in self._plan:
            return self._plan[name]
        return self._random.sample_independent(study, trial, name, distribution)


@pytest.mark.parametrize("make", [optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler])
def test_any_optuna_sampler_runs_the_same_objective(
    tiny_task: Task, tmp_path: Path, make: Callable[..., optuna.samplers.BaseSampler]
) -> None:
    space = SearchSpace((Prune,), (Half,), max_length=1)
    study = _run(tiny_task, tmp_path, trials=3, space=space, sampler=make(seed=0))
    assert len(study.trials) == 3
    original = study.user_attrs[attributes.BASELINE]["values"]["size_bytes"]
    assert any(row.values["size_bytes"] < original for row in front(study).rows)
    with pytest.raises(StudyError, match="of your own"):  # it is not stored, so nothing may stand in for it
        resume(tiny_task, storage=f"sqlite:///{tmp_path}/study.db")


def test_a_hard_limit_marks_trials_beyond_it_infeasible(
    tiny_task: Task, study: optuna.Study, tmp_path: Path
) -> None:
    space = SearchSpace((Prune,), (QuantizeStatic, Half), max_length=1)
    original = study.user_attrs[attributes.BASELINE]["values"]["size_bytes"]
    limited = _run(
        tiny_task, tmp_path, trials=5, space=space, limits=Limits(size_bytes=0.75 * original), name="limited"
    )
    stopped = [trial for trial in limited.trials if trial.state == TrialState.PRUNED]
    assert stopped[0].number == 0  # the original itself
    assert all(trial.constraints["size_bytes"] > 0 for trial in stopped)
    assert all(row.values["size_bytes"] <= 0.75 * original for row in front(limited).rows)
    assert front(limited).rows


def test_storage_holds_everything_to_read_the_front(study: optuna.Study, home: Path) -> None:
    storage = open_storage(f"sqlite:///{home}/study.db", must_exist=True)
    reopened = optuna.load_study(storage=storage, study_name="tiny")
    assert front(reopened) == front(study)
