"""The same study on a database server."""

from __future__ import annotations

from pathlib import Path

import pytest

from petra_optuna.evaluation import Budget
from petra_optuna.results import front
from petra_optuna.study import optimize, resume
from petra_optuna.tasks import Task


def test_a_study_lives_on_postgresql(
    tiny_task: Task, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts of a server's studies go below the working folder
    optimize(tiny_task, trials=1, storage=postgres_url, budget=Budget(epochs=1), name="served")
    study = resume(tiny_task, trials=2, storage=postgres_url, name="served")
    assert [trial.state.name for trial in study.trials[:2]] == ["COMPLETE", "COMPLETE"]
    assert front(study).rows
    assert any((tmp_path / "storage" / "artifacts").iterdir())
