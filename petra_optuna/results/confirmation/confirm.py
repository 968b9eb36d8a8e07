"""Confirming a front: its files on data that the search never saw, timed again, compared within noise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import optuna
import torch

from petra_optuna.errors import StudyError, UserError
from petra_optuna.evaluation import Evaluator
from petra_optuna.nn.training import training_threads
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results.artifacts import check_task, fetch_model, written_folder
from petra_optuna.results.confirmation.predictions import PlacedFile, TestPredictions, predict
from petra_optuna.results.confirmation.record import Confirmation
from petra_optuna.results.confirmation.retrain import Blueprint, Retraining, retrain
from petra_optuna.results.confirmation.summary import BASELINE, Findings, name_of, summarize
from petra_optuna.results.confirmation.timing import Timings, time_files
from petra_optuna.results.confirmation.write import write
from petra_optuna.results.front import Row, front, pipeline_text
from petra_optuna.results.report import limits_line, standing_line
from petra_optuna.study import StudyRecord
from petra_optuna.study.baseline import BASELINE_FILE
from petra_optuna.study.run import stored_space
from petra_optuna.study.worker_context import evaluator_of
from petra_optuna.tasks import Task, open_once

Progress = Callable[[str, int, int], None]
"""Called with the name of the phase, what is done of it, and how much there is."""
LEAST_RESAMPLES = 100
"""Fewest resamples that have the interval's ends, the 2.5th and 97.5th percentile."""


def confirm(
    study: optuna.Study,
    task: Task,
    *,
    out: Path | None = None,
    seeds: int = 0,
    bootstrap: int = 1000,
    rounds: int = 3,
    again: bool = False,
    cache: Path | None = None,
    space: SearchSpace | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Confirmation:
    """Measure the front's files on the test split, once, and store what is found in the study.

    Quality comes with paired bootstrap intervals, latency and throughput are measured again in rounds over
    all files, the size is counted again. Members dominated within noise are marked (see
    ``confirmation.dominance`` for the rule).

    Args:
        study: Study made by petra-optuna.
        task: Task of the study.
        out: New or empty folder for table, page and cards; nothing is written when None.
        seeds: Retrainings of each member from scratch, with other seeds.
        bootstrap: Resamples of the bootstrap.
        rounds: Rounds of timing.
        again: Whether to read the test split although it was read before; the number of readings is shown.
        cache: Folder of cached models, which holds the baseline that was trained in a study of the mode
            ``untrained``; that of the study when None.
        space: Search space with operations of the user's own, which ``seeds`` needs.
        progress: Called with what is done.

    Raises:
        UserError: When something given cannot be used; the test split has then not been read.

    Example:
        >>> confirmation = confirm(study, task, bootstrap=100, rounds=1)
        >>> confirmation.reading
        1
    """
    if bootstrap < LEAST_RESAMPLES or rounds < 1 or seeds < 0:
        raise UserError(
            f"`bootstrap` must be at least {LEAST_RESAMPLES}, `rounds` at least 1 and `seeds` at least 0, "
            f"got {bootstrap}, {rounds} and {seeds}"
        )
    task = check_task(study, task)
    record = StudyRecord(study)
    readings = record.test_readings
    rows = _rows(study, task, readings, again)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(written_folder(out)) if out is not None else None
        stack.enter_context(training_threads(record.specification.train_threads))
        evaluator = stack.enter_context(evaluator_of(study, task, cache=cache))
        files = _fetch_files(study, rows, evaluator.folder)
        retrainings = _retrain(study, rows, seeds, space, evaluator, progress)
        timings = time_files(
            files,
            evaluator.measurer.process,
            rounds,
            lambda done: progress("timing", done, rounds * len(files)),
        )
        _check_timed(timings)
        reading = _count_reading(study, readings, again)
        predictions = _predict(study, task, files, retrainings, evaluator, progress)
        confirmation = summarize(
            study,
            task,
            Findings(rows, files, retrainings, timings, predictions, reading),
            evaluator.measurer.baseline,
            bootstrap,
            partial(progress, "bootstrap"),
        )
        record.store_confirmation(confirmation.to_dict())
        if folder is not None:
            write(confirmation, study, task, folder)
    return confirmation


def confirmation_of(study: optuna.Study) -> Confirmation | None:
    """What was found when the study's front was last confirmed; None where it was not.

    Example:
        >>> confirmation_of(study) is None or confirmation_of(study).reading >= 1
        True
    """
    record = StudyRecord(study)
    stored = record.confirmation
    if stored is None:
        return None
    for member in stored["members"]:  # an earlier release may have described it by other names of fields
        member["pipeline"] = pipeline_text(record.evaluation(member["trial"]), "description")
    return Confirmation.from_dict(stored)


def _rows(study: optuna.Study, task: Task, readings: int, again: bool) -> tuple[Row, ...]:
    """The front, after checking that it can be confirmed."""
    if task.test is None:
        raise StudyError(
            f"task {task.name!r} has no test split, so its front cannot be confirmed; "
            "give it one, for example Task.from_loaders(test=...), and start a new study"
        )
    if readings and not again:
        raise _already_used(study, readings)
    read = front(study)
    if not read.rows:
        reason = limits_line(read) or standing_line(read) or "run more trials first"
        raise StudyError(f"the front of study {study.study_name!r} is empty; {reason}")
    return read.rows


def _already_used(study: optuna.Study, readings: int) -> StudyError:
    return StudyError(
        f"the test split was already used {readings} time(s) for study {study.study_name!r}: "
        "`front` shows what was found; `again` reads it once more, counted, which confirms less"
    )


def _check_timed(timings: Timings) -> None:
    """Refuse to read the test split for a table that would be empty."""
    if timings.failures.keys() == timings.rounds.keys():
        trial, reason = next(iter(timings.failures.items()))
        raise StudyError(
            f"no file of the front can be timed here (trial {trial}: {reason}); the test split was not read"
        )


def _count_reading(study: optuna.Study, readings: int, again: bool) -> int:
    """The number of the reading that begins now; one that is cut off counts too.

    Args:
        study: Study of the front.
        readings: Number of readings when this confirmation began.
        again: Whether another one that was counted since then does not matter.
    """
    record = StudyRecord(study)
    while not record.count_test_reading(readings):
        readings = record.test_readings
        if not again:
            raise _already_used(study, readings)
    return readings + 1


def _fetch_files(study: optuna.Study, rows: tuple[Row, ...], folder: Path) -> dict[int, Path]:
    record = StudyRecord(study)
    files = {row.trial: folder / f"trial-{row.trial}.onnx" for row in rows}
    for trial, path in files.items():
        fetch_model(study, record.evaluation(trial), path)
    return files


def _retrain(
    study: optuna.Study,
    rows: tuple[Row, ...],
    seeds: int,
    space: SearchSpace | None,
    evaluator: Evaluator,
    progress: Progress,
) -> dict[int, tuple[Retraining, ...]]:
    if not seeds:
        return {}
    record = StudyRecord(study)
    operations = (space or stored_space(record.specification)).operations
    return retrain(
        {row.trial: Blueprint.of(record.evaluation(row.trial), operations) for row in rows},
        evaluator,
        seeds,
        lambda done: progress("retraining", done, seeds * len(rows)),
    )


def _predict(
    study: optuna.Study,
    task: Task,
    files: Mapping[int, Path],
    retrainings: Mapping[int, tuple[Retraining, ...]],
    evaluator: Evaluator,
    progress: Progress,
) -> TestPredictions:
    """Read the test split."""
    assert task.test is not None
    split = open_once(task.test)
    profile = StudyRecord(study).specification.profile
    placed = {BASELINE: PlacedFile(evaluator.folder / BASELINE_FILE, profile.baseline_place)}
    placed |= {str(trial): PlacedFile(path, profile.place) for trial, path in files.items()}
    for trial, runs in retrainings.items():
        paths = {name_of(trial, run): run.path for run in runs if run.path is not None}
        placed |= {name: PlacedFile(path, profile.place) for name, path in paths.items()}
    threads = torch.get_num_threads()
    predictions = predict(placed, task, split, threads, lambda done: progress("test split", done, len(split)))
    if BASELINE in predictions.failures:
        raise StudyError(f"the baseline fails on the test split: {predictions.failures[BASELINE]}")
    return predictions
