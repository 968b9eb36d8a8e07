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
from petra_optuna.pipeline import SearchSpace
from petra_optuna.results.artifacts import check_task, fetch_model, written_folder
from petra_optuna.results.confirmation.judge import TestPredictions, judged
from petra_optuna.results.confirmation.record import Confirmation
from petra_optuna.results.confirmation.retrain import Blueprint, Retrained, retrained
from petra_optuna.results.confirmation.summary import ORIGINAL, Findings, name_of, readings_of, summary
from petra_optuna.results.confirmation.timing import timed
from petra_optuna.results.confirmation.write import write
from petra_optuna.results.front import Row, evaluation_of, front
from petra_optuna.results.report import limits_line
from petra_optuna.study import record as attributes
from petra_optuna.study.baseline import BASELINE_FILE
from petra_optuna.study.lookup import specification_of
from petra_optuna.study.run import stored_space
from petra_optuna.study.worker_context import evaluator_of, training_threads
from petra_optuna.tasks import Task, open_once

Progress = Callable[[str, int, int], None]
"""Called with the name of the phase, what is done of it, and how much there is."""
LEAST_RESAMPLES = 100
"""The interval's ends are the 2.5th and 97.5th percentile: fewer resamples do not have them."""


def confirm(
    study: optuna.Study,
    task: Task,
    *,
    out: Path | None = None,
    seeds: int = 0,
    bootstrap: int = 1000,
    rounds: int = 3,
    again: bool = False,
    space: SearchSpace | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Confirmation:
    """Measure the front's files on the test split, once, and store what is found in the study.

    Quality comes with paired bootstrap intervals, latency and throughput are measured again in rounds over
    all files, the size is counted again. Members dominated within noise are marked (see
    ``confirmation.dominance`` for the rule).

    Args:
        study: Made by petra.
        task: The study's.
        out: New or empty folder for table, page and cards; nothing is written when None.
        seeds: Retrainings of each member from scratch, with other seeds.
        bootstrap: Resamples.
        rounds: Of timing.
        again: Read the test split although it was read before; the number of readings is shown.
        space: Holds operations of the user's own, which ``seeds`` needs.
        progress: Told what is done.

    Raises:
        UserError: When something given cannot be used; the test split has then not been read.
    """
    if bootstrap < LEAST_RESAMPLES or rounds < 1 or seeds < 0:
        raise UserError(
            f"a confirmation needs at least {LEAST_RESAMPLES} resamples, 1 round and 0 seeds, "
            f"got {bootstrap}, {rounds} and {seeds}"
        )
    task = check_task(study, task)
    rows = _checked(study, task, again)
    specification = specification_of(study)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(written_folder(out)) if out is not None else None
        stack.enter_context(training_threads(specification.train_threads))
        evaluator = stack.enter_context(evaluator_of(study, task))
        files = _files(study, rows, evaluator.folder)
        runs = _retrained(study, rows, seeds, space, evaluator, progress)
        clock = timed(
            files, evaluator.measurer, rounds, lambda done: progress("timing", done, rounds * len(files))
        )
        found = _judged(study, task, files, runs, evaluator, progress)
        findings = Findings(rows, files, runs, clock, found)
        confirmation = summary(
            study, task, findings, evaluator.baseline, bootstrap, partial(progress, "bootstrap")
        )
        study.set_user_attr(attributes.CONFIRMATION, confirmation.to_dict())
        if folder is not None:
            write(confirmation, study, task, folder)
    return confirmation


def confirmation_of(study: optuna.Study) -> Confirmation | None:
    """What was found when the study's front was last confirmed; None where it was not."""
    data = study.user_attrs.get(attributes.CONFIRMATION)
    return None if data is None else Confirmation.from_dict(data)


def _checked(study: optuna.Study, task: Task, again: bool) -> tuple[Row, ...]:
    if task.test is None:
        raise StudyError(
            f"task {task.name!r} has no test split, so its front cannot be confirmed; "
            "give it one, for example Task.from_loaders(test=...), and start a new study"
        )
    if (readings := readings_of(study)) and not again:
        raise StudyError(
            f"the test split was already used {readings} time(s) for study {study.study_name!r}: "
            "`petra front` shows what was found; --again reads it once more, counted, which confirms less"
        )
    found = front(study)
    if not found.rows:
        why = limits_line(found) or "run more trials first"
        raise StudyError(f"the front of study {study.study_name!r} is empty; {why}")
    return found.rows


def _files(study: optuna.Study, rows: tuple[Row, ...], folder: Path) -> dict[int, Path]:
    files = {row.trial: folder / f"trial-{row.trial}.onnx" for row in rows}
    for trial, path in files.items():
        fetch_model(study, evaluation_of(study, trial), path)
    return files


def _retrained(
    study: optuna.Study,
    rows: tuple[Row, ...],
    seeds: int,
    space: SearchSpace | None,
    evaluator: Evaluator,
    progress: Progress,
) -> dict[int, tuple[Retrained, ...]]:
    if not seeds:
        return {}
    operations = (space or stored_space(specification_of(study))).operations
    return retrained(
        {row.trial: Blueprint.of(evaluation_of(study, row.trial), operations) for row in rows},
        evaluator,
        seeds,
        lambda done: progress("retraining", done, seeds * len(rows)),
    )


def _judged(
    study: optuna.Study,
    task: Task,
    files: Mapping[int, Path],
    runs: Mapping[int, tuple[Retrained, ...]],
    evaluator: Evaluator,
    progress: Progress,
) -> TestPredictions:
    """The reading. It is counted before it begins, so that one that is cut off counts too."""
    assert task.test is not None
    split = open_once(task.test)
    named = {ORIGINAL: evaluator.folder / BASELINE_FILE}
    named |= {str(trial): path for trial, path in files.items()}
    for trial, retrainings in runs.items():
        named |= {name_of(trial, run): run.path for run in retrainings if run.path is not None}
    profile = specification_of(study).profile
    study.set_user_attr(attributes.TEST_READINGS, readings_of(study) + 1)
    found = judged(
        named,
        task,
        split,
        torch.get_num_threads(),
        lambda done: progress("test split", done, len(split)),
        {**dict.fromkeys(named, profile.place), ORIGINAL: profile.baseline_place},
    )
    if ORIGINAL in found.failures:
        raise StudyError(f"the original fails on the test split: {found.failures[ORIGINAL]}")
    return found
