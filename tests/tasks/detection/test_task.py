from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.detection_folders import CLASSES, content, write_coco

from petra_optuna.errors import DataError
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.training import run_epochs
from petra_optuna.tasks import Task, build_task, detection
from petra_optuna.tasks.checks import check_evaluation, check_training
from petra_optuna.tasks.distilling import distillation_of


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("detection")
    torch.manual_seed(0)
    save_file(detection.build_model(len(CLASSES)).state_dict(), folder / "base.safetensors")
    return build_task(
        "detection",
        data_root=write_coco(folder / "data", content()),
        checkpoint=folder / "base.safetensors",
        cache_dir=folder / "cache",
    )


def test_it_passes_the_checks_that_a_task_of_ones_own_has_to(task: Task) -> None:
    check_evaluation(private_copy(task.model), task.selection, task.metric)
    tried = check_training(private_copy(task.model), task.train, task.loss, None)
    assert tried is not None
    assert distillation_of(task.distillation, task.loss, *tried) is task.distillation
    assert task.metric.direction == "maximize"
    assert task.labels == CLASSES


def test_the_loss_falls_in_training(task: Task) -> None:
    model = private_copy(task.model).train()
    losses = run_epochs(
        model,
        lambda epoch: task.train.batches(10, shuffle_seed=epoch),
        lambda inputs, targets: task.loss(forward(model, inputs), targets),
        torch.optim.AdamW(model.parameters(), lr=3e-3),
        schedule="constant",
        epochs=10,
        steps_per_epoch=1,
    )
    assert losses[-1] < 0.6 * losses[0]


def test_the_fingerprint_is_that_of_the_content(task: Task, tmp_path: Path) -> None:
    save_file(task.model.state_dict(), tmp_path / "base.safetensors")
    tasks = [
        build_task(
            "detection",
            data_root=write_coco(tmp_path / str(number), content(count, 1)),
            checkpoint=tmp_path / "base.safetensors",
            cache_dir=tmp_path / "cache",
        )
        for number, count in enumerate((4, 4, 3))
    ]
    assert tasks[0].fingerprint == tasks[1].fingerprint != tasks[2].fingerprint


def test_a_checkpoint_of_other_classes_is_one_line(tmp_path: Path) -> None:
    save_file(detection.build_model(3).state_dict(), tmp_path / "base.safetensors")
    with pytest.raises(DataError, match=r"not a safetensors state_dict of YOLO\(2\)") as caught:
        build_task(
            "detection",
            data_root=write_coco(tmp_path / "data", content()),
            checkpoint=tmp_path / "base.safetensors",
            cache_dir=tmp_path / "cache",
        )
    assert "\n" not in str(caught.value)


def test_the_base_is_trained_where_no_checkpoint_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = detection.task.RECIPE
    monkeypatch.setattr(detection.task, "RECIPE", type(recipe)(1, 8, recipe.peak_lr, optimizer="adamw"))
    root = write_coco(tmp_path / "data", content())
    first, second = (build_task("detection", data_root=root, cache_dir=tmp_path / "cache") for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert len(list((tmp_path / "cache").glob("detection-*.safetensors"))) == 1
