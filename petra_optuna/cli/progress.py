"""What a long command shows: a line per trial, a bar, the best hypervolume so far, time left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)

from petra_optuna.results import Progress, pipeline_text, study_hypervolume, values_line
from petra_optuna.samplers import finished_trials
from petra_optuna.study import StudyRecord, TrialRecord, warm_start_line, why_no_file

Callback = Callable[[optuna.Study, FrozenTrial], None]


@contextlib.contextmanager
def trial_progress(console: Console, total: int | None) -> Iterator[Callback]:
    """A progress bar for the time of the block; the value is the callback that moves it."""
    columns = (
        TextColumn("trials"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("best hypervolume {task.fields[hypervolume]:.4g} (baseline 1)"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task("trials", total=total, hypervolume=0.0)

        def callback(study: optuna.Study, trial: FrozenTrial) -> None:
            reached = study_hypervolume(study)
            done = len(finished_trials(study))
            if bar.tasks[0].completed == 0:  # a resumed study: what was done before took no time now
                bar.reset(task, total=total, completed=done - 1)
                if line := warm_start_line(study):
                    bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            bar.update(task, completed=done, hypervolume=reached)
            bar.console.print(
                f"[{done}/{total or '?'}] {_line(study, trial)}; hypervolume {reached:.4g}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

        yield callback


@contextlib.contextmanager
def phase_progress(console: Console) -> Iterator[Progress]:
    """A bar for each phase that is told of in the block."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=not console.is_terminal) as bars:
        phases: dict[str, TaskID] = {}

        def progress(phase: str, done: int, total: int) -> None:
            if phase not in phases:
                phases[phase] = bars.add_task(phase, total=total)
            bars.update(phases[phase], completed=done)

        yield progress


def _line(study: optuna.Study, trial: FrozenTrial) -> str:
    """The objectives of a trial with their changes against the baseline, or why it has none."""
    evaluation = TrialRecord(trial).evaluation
    if trial.state != TrialState.COMPLETE or evaluation is None:
        return f"trial {trial.number} {trial.state.name}: {why_no_file(trial)}"
    values = {name: evaluation["values"][name] for name in study.metric_names or ()}
    text = values_line(values, StudyRecord(study).baseline_values)
    return f"trial {trial.number} {pipeline_text(evaluation, 'notation')}: {text}"
