"""The best model of a tuning study becomes a folder that someone else can run."""

from __future__ import annotations

from pathlib import Path

from petra_optuna.edgetune.result import TuningResult, fetch_file
from petra_optuna.errors import StudyError
from petra_optuna.evaluation import quality_of
from petra_optuna.results import write_json, write_runnable, written_folder
from petra_optuna.study import MODEL_FILE
from petra_optuna.tasks import Task

_TOLERANCE = 1e-3


def export_tuned(result: TuningResult, task: Task, url: str, out: Path) -> Path:
    """Write ``model.onnx``, ``preprocess.json``, ``run.py``, ``deployment.json`` and ``recipe.json``.

    The folder appears only after the file has been run on the selection split and agrees with what the trial
    stored, and after ``run.py`` has been run and computes what the file does.

    Args:
        result: The trial.
        task: Task of the workload.
        url: URL of the study's database.
        out: New or empty folder.

    Raises:
        StudyError: When file or script disagrees, or the folder cannot be written.

    Example:
        >>> folder = export_tuned(result_of(tuned), task, "sqlite:///storage/tune.db", Path("tuned"))
        >>> sorted(path.name for path in folder.iterdir())
        ['deployment.json', 'model.onnx', 'preprocess.json', 'recipe.json', 'run.py']
    """
    with written_folder(out) as folder:
        file = folder / MODEL_FILE
        fetch_file(result, url, file)
        quality, stored = quality_of(file, task, task.selection), result.record.quality
        if stored is None or abs(quality - stored) > _TOLERANCE * max(1.0, abs(stored)):
            raise StudyError(
                f"the file scores {task.metric.name} {quality:.4f} on the selection split here, the trial "
                f"stored {stored}; nothing was exported"
            )
        write_runnable(folder, task, ("onnxruntime", "cpu"), result.recommendation)
        write_json(folder / "recipe.json", result.to_dict())
    return out
