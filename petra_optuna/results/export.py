"""A trial becomes a folder that someone else can run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import optuna
import torch

from petra_optuna.errors import StudyError, TrialError
from petra_optuna.evaluation import checkpoint, quality_of
from petra_optuna.measurement import DeviceProfile
from petra_optuna.results.artifacts import check_task, fetch_model, written_folder
from petra_optuna.results.card import TEMPLATES, card_fields
from petra_optuna.results.recommend import recommendation_of
from petra_optuna.results.runnable import write_json, write_runnable
from petra_optuna.study import Specification, StudyRecord
from petra_optuna.study.objective import MODEL_FILE, REBUILD_FILE
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What was written, and the check that it passed.

    Attributes:
        folder: Where the files are.
        quality: Metric of the exported file on the selection split, just computed.
        stored: Metric as the trial stored it.
    """

    folder: Path
    quality: float
    stored: float


def export_trial(study: optuna.Study, number: int, out: Path, task: Task) -> ExportResult:
    """Write ``model.onnx``, ``preprocess.json``, ``run.py``, ``card.md``, ``recipe.json`` and ``rebuild/``.

    A trial with a recommendation (``recommend_trial``) gets ``deployment.json`` too, which ``run.py`` uses.
    The folder appears only after the file has been run on the selection split and agrees with what
    the trial stored, and after ``run.py`` has been run and computes what the file does.

    Args:
        study: Study of the trial.
        number: Number of the trial.
        out: New or empty folder.
        task: Task of the study.

    Raises:
        StudyError: When the trial has no file, file or script disagrees, or the folder cannot be written.

    Example:
        >>> exported = export_trial(study, 0, Path("shipped"), task)
        >>> sorted(path.name for path in exported.folder.iterdir())
        ['card.md', 'model.onnx', 'preprocess.json', 'rebuild', 'recipe.json', 'run.py']
    """
    record = StudyRecord(study)
    evaluation, specification = record.evaluation(number), record.specification
    task = check_task(study, task)
    with written_folder(out) as folder:
        model = folder / MODEL_FILE
        fetch_model(study, evaluation, model)
        quality = _check(model, evaluation, task, specification.profile)
        _write_rebuild(record, evaluation, task, folder)
        source = {"task": task.name, "study": study.study_name, "trial": number}
        write_json(folder / "recipe.json", {**source, **_recipe(evaluation, specification)})
        write_runnable(folder, task, specification.profile.place, recommendation_of(study, number))
        card = Template((TEMPLATES / "card.md").read_text(encoding="utf-8"))
        (folder / "card.md").write_text(card.substitute(card_fields(study, number, task)), encoding="utf-8")
    return ExportResult(out, quality, evaluation["values"][task.metric.name])


def _check(model: Path, evaluation: Mapping[str, Any], task: Task, profile: DeviceProfile) -> float:
    """The file's quality on the selection split, after comparing it with the stored one."""
    try:
        quality = quality_of(model, task, task.selection, torch.get_num_threads(), *profile.place)
    except TrialError as error:
        raise StudyError(f"the file cannot be run here, so nothing was exported: {error}") from error
    stored = evaluation["values"][task.metric.name]
    # One sample of an accuracy; other metrics move with every output.
    tolerance = (1 / len(task.selection) if task.metric.name == "accuracy" else 1e-3 * abs(stored)) + 1e-9
    if abs(quality - stored) > tolerance:
        raise StudyError(
            f"the file scores {task.metric.name} {quality:.4f} on the selection split here, the trial stored "
            f"{stored:.4f}; another CPU or version of {profile.runtime}? nothing was exported"
        )
    return quality


def _write_rebuild(record: StudyRecord, evaluation: Mapping[str, Any], task: Task, folder: Path) -> None:
    """The PyTorch model before conversion, as a folder of its own."""
    stored = folder / REBUILD_FILE
    record.fetch(evaluation["rebuild"]["id"], stored)
    model = checkpoint.from_bytes(stored.read_bytes(), task.model)
    stored.unlink()
    checkpoint.save(model, task.model, folder / "rebuild")


def _recipe(evaluation: Mapping[str, Any], specification: Specification) -> dict[str, Any]:
    """All that the file is built again from."""
    return {
        **evaluation["pipeline"],
        "budget": dataclasses.asdict(specification.budget),
        "seed": specification.seed,
        "mode": specification.mode,
        "repair": evaluation["repair"],
        "convolutions": evaluation["lowering"]["convolutions"],
        "stopped": evaluation["stopped"],
    }
