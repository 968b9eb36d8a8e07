"""Studies whose pipelines start from initialisation: controls, files, resuming, the baseline."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from support import small_task
from torch.utils.data import DataLoader

from petra_optuna.errors import StudyError, TaskError, UserError
from petra_optuna.evaluation import Budget
from petra_optuna.models import ResidualNet
from petra_optuna.operations import Half, Prune, Train, default_space
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results import confirm, export_trial, front
from petra_optuna.study import StudyRecord, controls, optimize, resume
from petra_optuna.study import record as attributes
from petra_optuna.study.trained_baseline import with_trained_baseline
from petra_optuna.tasks import Task

SPACE = SearchSpace((Train, Prune), (Half,), max_length=1)
TRIALS = 4
"""Three controls and one that the sampler drew."""


@pytest.mark.parametrize("epochs", [1, 2, 5, 10, 11, 25, 50, 99])
def test_the_controls_are_legal_and_spend_what_a_pipeline_may_spend(epochs: int) -> None:
    space, budget = default_space(untrained=True), Budget(epochs)
    found = controls(space, budget)
    spent = [sum(budget.allot(pipeline.body)) for pipeline in found]
    assert spent == [min(epochs, 50)] * len(found)
    assert len({pipeline.hash for pipeline in found}) == len(found)
    assert all(space.violations(pipeline) == () for pipeline in found)
    assert [pipeline.recipe.distillation_weight for pipeline in found[:4]] == [0.0, 0.0, 0.0, 0.9]
    if epochs <= 10:
        notations = [pipeline.notation for pipeline in found]
        last = "Tr-Pr-Tr-PTQ" if epochs > 1 else "Tr-Pr-PTQ"
        assert notations == ["Tr", "Tr-FP16", "Tr-PTQ", "Tr", last]


def _run(task: Task, folder: Path, trials: int, **changes: Any) -> optuna.Study:
    settings: dict[str, Any] = {
        "space": SPACE,
        "budget": Budget(1),
        "mode": "untrained",
        "region": 1.0,
    } | changes
    url = f"sqlite:///{folder}/study.db"
    return optimize(task, trials=trials, storage=url, name="tiny", cache=folder / "cache", **settings)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("untrained")


@pytest.fixture(scope="module")
def study(tiny_task: Task, home: Path) -> optuna.Study:
    """Stopped after a control, then resumed."""
    _run(tiny_task, home, trials=1)
    return resume(tiny_task, storage=f"sqlite:///{home}/study.db", trials=TRIALS)


def test_every_trial_trains_first_and_the_baseline_is_the_given_model(
    tiny_task: Task, study: optuna.Study
) -> None:
    records = [StudyRecord(study).evaluation(trial.number) for trial in study.trials]
    assert len(records) == TRIALS
    for record in records:
        assert record["pipeline"]["nodes"][0]["op"] == "train"
        assert record["nodes"][0]["epochs"] >= 1
    assert "reference" not in study.user_attrs[attributes.BASELINE]
    assert front(study).baseline["accuracy"] > 0.9
    assert StudyRecord(study).specification.mode == "untrained"


def test_stopped_and_resumed_it_has_the_trials_of_one_never_stopped(
    tiny_task: Task, study: optuna.Study, tmp_path: Path
) -> None:
    """The files bit for bit; ``samplers/test_retry.py`` has the plans."""
    whole = _run(tiny_task, tmp_path, trials=2)
    for one, other in zip(whole.trials[:2], study.trials[:2], strict=True):
        assert one.params == other.params
        files = [StudyRecord(each).evaluation(one.number)["artifact"]["sha256"] for each in (whole, study)]
        assert files[0] == files[1]


def test_it_is_not_continued_in_the_other_mode(tiny_task: Task, study: optuna.Study, home: Path) -> None:
    with pytest.raises(StudyError, match=r"another specification .*mode: untrained != pretrained"):
        _run(tiny_task, home, trials=7, mode="pretrained")
    with pytest.raises(UserError, match="the `space` is for pipelines that start from initialisation"):
        _run(tiny_task, home, trials=7, mode="pretrained", space=default_space(untrained=True))


def test_it_is_exported_and_confirmed(tiny_task: Task, study: optuna.Study, tmp_path: Path) -> None:
    done = export_trial(study, 0, tmp_path / "out", tiny_task)
    assert done.quality == pytest.approx(done.stored)
    card = (tmp_path / "out" / "card.md").read_text()
    assert "starts from initialisation with seed 0. The original is the given model" in card
    found = confirm(study, tiny_task, out=tmp_path / "confirmed", bootstrap=100, rounds=1)
    assert {member.trial for member in found.members} == {row.trial for row in front(study).rows}


def test_a_specification_of_before_the_mode_is_pretrained(study: optuna.Study) -> None:
    stored = study.user_attrs[attributes.SPECIFICATION]
    old = {name: value for name, value in stored.items() if name != "mode"}
    assert type(StudyRecord(study).specification).from_dict(old).mode == "pretrained"
    assert "untrained" not in SPACE.to_dict()


def _raw() -> Task:
    """The tiny task with a model that nothing has trained."""
    train, selection, test = (
        DataLoader(small_task.data(count, seed), batch_size=32) for seed, count in enumerate((256, 128, 128))
    )
    torch.manual_seed(1)
    model = ResidualNet(1, small_task.CLASSES, widths=(16, 32), blocks=1)
    return Task.from_loaders(model, train, selection, test, metric="accuracy", name="raw", trained=False)


def test_an_untrained_model_is_trained_before_it_is_baseline_and_teacher(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = _raw()
    with pytest.raises(TaskError, match="is not trained; use the mode untrained"):
        _run(task, tmp_path, trials=1, mode="pretrained")
    assert not (tmp_path / "study.db").exists()
    with caplog.at_level(logging.WARNING):
        study = _run(task, tmp_path, trials=1, budget=Budget(6))
    assert "the model of task raw is not trained: training it for 6 epochs" in caplog.text
    assert front(study).baseline["accuracy"] > 0.5  # of four classes
    specification = StudyRecord(study).specification
    reference = with_trained_baseline(task.in_mode("untrained"), specification)
    assert reference.trained
    assert reference.fingerprint == study.user_attrs[attributes.BASELINE]["reference"]
    assert with_trained_baseline(reference, specification) is reference
    for seed in (0, 1):
        other = with_trained_baseline(
            task.in_mode("untrained"), dataclasses.replace(specification, seed=seed)
        )
        assert (other.fingerprint == reference.fingerprint) is (seed == 0)
    export_trial(study, 0, tmp_path / "out", task)
    assert "the network trained once, for 6 epochs" in (tmp_path / "out" / "card.md").read_text()
    record = study.user_attrs[attributes.BASELINE]
    study.set_user_attr(attributes.BASELINE, {**record, "reference": "of another machine"})
    with pytest.raises(StudyError, match="the retrained baseline of study 'tiny' differs"):
        resume(task, storage=f"sqlite:///{tmp_path}/study.db", trials=2)
