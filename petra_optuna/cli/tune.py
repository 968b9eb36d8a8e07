"""The command that tunes a model, its training and its serving in one search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import optuna
import typer
from optuna.trial import FrozenTrial
from rich.console import Console

from petra_optuna.cli import options
from petra_optuna.cli.console import busy, make_console
from petra_optuna.database import DEFAULT_URL, absolute_url, cache_folder, open_storage, parse_url, shown_url
from petra_optuna.edgetune import (
    DEFAULT_INFERENCES,
    WORKLOADS,
    BudgetKind,
    TuningBudget,
    Workload,
    WorkloadSource,
    build_workload,
    counts_of,
    export_tuned,
    parameter,
    record_of,
    result_lines,
    result_of,
    specification_of,
    stored_workload,
    tune,
)
from petra_optuna.edgetune import resume_tuning as resume_study
from petra_optuna.errors import UserError
from petra_optuna.inference import DEFAULT_ALGORITHM, INFERENCE_OBJECTIVES, MAX_BATCH, parse_device
from petra_optuna.results import check_new_folder
from petra_optuna.samplers import ALGORITHMS
from petra_optuna.study import Callback, why_no_file

_ALGORITHMS = ", ".join(known.name for known in ALGORITHMS)
_INFERENCE = ", ".join(known.name for known in INFERENCE_OBJECTIVES)
_NO_INFERENCE = "none"


def tune_command(
    workload: Annotated[str, typer.Argument(help=f"Workload: {', '.join(WORKLOADS)}.")],
    data_root: options.DataRoot = None,
    trials: options.Trials = None,
    timeout: options.Timeout = None,
    target_quality: Annotated[
        float | None,
        typer.Option(
            help="Stop once a file reaches this metric on the selection split.",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="Range of a parameter: NAME=LOW:HIGH or NAME=VALUE,VALUE; repeatable. train_threads=1:4 "
            "tunes the threads of training.",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    algorithm: Annotated[
        str,
        typer.Option(help=f"Search of model and training: {_ALGORITHMS}.", rich_help_panel=options.SEARCH),
    ] = "bohb",
    inference_algorithm: Annotated[
        str,
        typer.Option(help="Search of inference settings, one of the same.", rich_help_panel=options.SEARCH),
    ] = DEFAULT_ALGORITHM,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="ALGORITHM=NAME,NAME: leave parameters of either search to another algorithm; repeatable.",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Seed of the search and of all training.", rich_help_panel=options.SEARCH),
    ] = 0,
    objective: Annotated[
        str,
        typer.Option(
            help="runtime: (training + inference time) / quality; energy: the same in joules; or quality.",
            rich_help_panel=options.LIMITS,
        ),
    ] = "runtime",
    inference_objective: Annotated[
        str,
        typer.Option(
            help=f"What serving is tuned for: {_INFERENCE}; none tunes without regard to serving.",
            rich_help_panel=options.LIMITS,
        ),
    ] = "throughput",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Bound on a figure of a trial, such as 'quality>=0.9' or 'inference_s<=2'; also train_s, "
            "train_j, inference_j; repeatable.",
            rich_help_panel=options.LIMITS,
        ),
    ] = None,
    inferences: Annotated[
        int,
        typer.Option(min=0, help="Samples that count as inference.", rich_help_panel=options.LIMITS),
    ] = DEFAULT_INFERENCES,
    device: options.ServingDevice = "host",
    cap: options.Cap = False,
    max_batch: options.MaxBatch = MAX_BATCH,
    energy_estimator: options.EnergyEstimator = None,
    budget: Annotated[
        BudgetKind,
        typer.Option(help="What grows from rung to rung.", rich_help_panel=options.TRAINING),
    ] = "multi",
    min_epochs: Annotated[
        int, typer.Option(help="Epochs of the first iteration.", rich_help_panel=options.TRAINING)
    ] = TuningBudget.min_epochs,
    max_epochs: Annotated[
        int, typer.Option(help="Most epochs.", rich_help_panel=options.TRAINING)
    ] = TuningBudget.max_epochs,
    min_fraction: Annotated[
        float,
        typer.Option(help="Share of the data of the first iteration.", rich_help_panel=options.TRAINING),
    ] = TuningBudget.min_fraction,
    reduction_factor: Annotated[
        int, typer.Option(help="Hyperband's factor between rungs.", rich_help_panel=options.TRAINING)
    ] = TuningBudget.reduction_factor,
    train_threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads for training (default: the cores that the device leaves free).",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    storage: options.Storage = DEFAULT_URL,
    study: options.StudyName = None,
    cache: options.NewCache = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the best model's file, new or empty.", rich_help_panel=options.STORAGE),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Tune a model, its training and its serving in one search; continue the study if it exists.

    Example: petra tune sr --data-root data/fsdd --trials 12 --storage sqlite:///storage/tune.db
    """
    if out is not None:
        check_new_folder(out)
    profile = parse_device(device, cap=cap)
    chosen = TuningBudget(budget, min_epochs, max_epochs, min_fraction, reduction_factor)
    grouped = _groups(group or [])
    source = WorkloadSource(workload, None if data_root is None else str(data_root.resolve()))
    database = open_storage(storage)  # before minutes go into the workload
    database.remove_session()
    console = make_console(quiet or as_json)
    with busy(console, f"preparing workload {workload}"):
        built = build_workload(
            workload, data_root=data_root, cache_dir=cache or cache_folder(storage), seed=seed
        )
    parameters = {**built.model_space, **built.training_space}
    with _progress(console, trials) as callback:
        tuned = tune(
            built,
            dict(parameter(text, parameters) for text in space or ()),
            objective=objective,
            inference_objective=None if inference_objective == _NO_INFERENCE else inference_objective,
            budget=chosen,
            algorithm=algorithm,
            inference_algorithm=inference_algorithm,
            groups=grouped,
            device=profile,
            trials=trials,
            timeout_s=timeout,
            target_quality=target_quality,
            storage=storage,
            name=study,
            source=source,
            inferences=inferences,
            max_batch=max_batch,
            energy_estimator=energy_estimator,
            train_threads=train_threads,
            limits=limit or (),
            seed=seed,
            callbacks=[callback],
        )
    _conclude(tuned, built, storage, out, as_json, console)


def resume_tuning(
    study: optuna.Study,
    storage: str,
    trials: int | None,
    timeout: float | None,
    data_root: Path | None,
    cache: Path | None,
    quiet: bool,
) -> None:
    """Continue a stored tuning study; what is None comes from the study."""
    specification = specification_of(study)
    console = make_console(quiet)
    with busy(console, f"preparing workload {specification.workload.name}"):
        built = stored_workload(specification, data_root, cache or cache_folder(storage))
    with _progress(console, trials) as callback:
        tuned = resume_study(
            built,
            storage=storage,
            name=study.study_name,
            trials=trials,
            timeout_s=timeout,
            callbacks=[callback],
        )
    _conclude(tuned, built, storage, None, False, console)


@contextmanager
def _progress(console: Console, total: int | None) -> Iterator[Callback]:
    """Prints a line for each trial."""

    def line(study: optuna.Study, trial: FrozenTrial) -> None:
        record = record_of(trial)
        shown = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
        if record is None or record.quality is None or trial.value is None:
            ended = why_no_file(trial)
        else:
            ended = f"{study.metric_names[0] if study.metric_names else 'value'} {trial.value:.4g}, " + (
                f"quality {record.quality:.4f}, training {record.rungs[-1].train_s:.1f} s"
            )
            ended += f" ({record.energy_source})" if record.energy_source else ""
        console.print(f"[{trial.number + 1}/{total or '?'}] {shown}: {ended}", soft_wrap=True)

    yield line


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _conclude(
    study: optuna.Study, workload: Workload, storage: str, out: Path | None, as_json: bool, console: Console
) -> None:
    result = result_of(study)
    if out is not None:
        export_tuned(result, workload.task, absolute_url(storage), out)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    for part in result_lines(result, counts_of(study)):
        console.print(part, soft_wrap=True)
    where = f"--storage {shown_url(parse_url(storage))} --study {study.study_name}"
    if out is not None:
        console.print(f"Files written to {out}: model.onnx, run.py, deployment.json and more")
    else:
        console.print(f"Its files: petra export {where} --trial {result.trial} --out DIR", soft_wrap=True)


def _groups(given: list[str]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, separator, names = text.partition("=")
        if not separator or not names:
            raise UserError(f"--group must be ALGORITHM=NAME,NAME, got {text!r}")
        groups[name] = (*groups.get(name, ()), *names.split(","))
    return groups
