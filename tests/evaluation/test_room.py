from __future__ import annotations

import shutil
import types

import pytest
from torch import nn

from petra_optuna.errors import LoweringFailed, StudyError
from petra_optuna.evaluation import shipping
from petra_optuna.evaluation.room import room_to_build
from petra_optuna.evaluation.shipping import Shipment
from petra_optuna.tasks import Task

FULL, ROOMY = 72 * 1024, 10**12


def _free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=count))


@pytest.mark.parametrize("error", [LoweringFailed("INVALID_PROTOBUF"), EOFError("cut off")])
def test_a_failure_is_put_down_to_a_full_folder_and_to_nothing_else(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, raised in ((FULL, StudyError), (ROOMY, type(error))):
        _free(monkeypatch, free)
        with pytest.raises(raised), room_to_build(nn.Linear(8, 8)):
            raise error


def test_a_large_model_needs_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    _free(monkeypatch, 8 * 2**20)
    for width, raised in ((8, LoweringFailed), (1024, StudyError)):
        with pytest.raises(raised), room_to_build(nn.Linear(width, width)):
            raise LoweringFailed("no file")


def test_work_that_succeeds_in_a_full_folder_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    _free(monkeypatch, FULL)
    with room_to_build(nn.Linear(8, 8)):
        pass


def test_a_file_that_cannot_be_made_in_a_full_folder_is_not_the_pipelines_fault(
    tiny_task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("model.onnx failed: Protobuf parsing failed")

    _free(monkeypatch, FULL)
    monkeypatch.setattr(shipping, "lower", refuse)
    with pytest.raises(StudyError, match=r"the temporary folder .* make room there or set TMPDIR"):
        Shipment(tiny_task.model, tiny_task, tmp_path / "model.onnx").lower()
