"""The commands that search: run and resume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import optuna
import typer
from rich.console import Console

from petra_optuna.aliases import TrainPrecision
from petra_optuna.cli import options
from petra_optuna.cli.console import busy, make_console
from petra_optuna.cli.progress import trial_progress
from petra_optuna.cli.tasks import stored_source, task_of
from petra_optuna.cli.tune import resume_tuning
from petra_optuna.database import DEFAULT_URL, cache_folder, open_storage, parse_url, shown_url
from petra_optuna.edgetune import is_tuning
from petra_optuna.errors import UserError
from petra_optuna.evaluation import (
    DEFAULT_OBJECTIVES,
    EFFICIENCY_METRICS,
    Budget,
    Limits,
    Rungs,
    efficiency_metric,
)
from petra_optuna.measurement import DeviceProfile
from petra_optuna.operations import default_space
from petra_optuna.results import added_line, as_table, limits_line, publish, standing_line
from petra_optuna.samplers import without_collection
from petra_optuna.study import (
    DEFAULT_POPULATION,
    ParentWatch,
    Stop,
    StudyRecord,
    TaskSource,
    check_origin,
    load_study,
    optimize,
    origin_of,
    stop_of,
)
from petra_optuna.study import resume as resume_study
from petra_optuna.tasks import Mode

_NAMES = [known.name for known in EFFICIENCY_METRICS]


def run(
    task: Annotated[str, typer.Argument(help="A built-in task (see `petra tasks`) or module:callable.")],
    trials: options.Trials = None,
    timeout: options.Timeout = None,
    generations: options.Generations = None,
    stagnation: options.StagnationTrials = None,
    target: options.Target = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="Start from the trained or an initialised model.",
            rich_help_panel=options.SEARCH,
        ),
    ] = "pretrained",
    max_length: Annotated[
        int,
        typer.Option(help="Maximum nodes before the conversion.", rich_help_panel=options.SEARCH),
    ] = 5,
    population: Annotated[
        int, typer.Option(min=2, help="Pipelines that may become parents.", rich_help_panel=options.SEARCH)
    ] = DEFAULT_POPULATION,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Seed of the search and of all training.", rich_help_panel=options.SEARCH),
    ] = 0,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity",
            help="Measure per-layer sensitivity first and draw the strengths of new nodes near the priors.",
            rich_help_panel=options.SEARCH,
        ),
    ] = False,
    region: Annotated[
        float | None,
        typer.Option(
            help="Most quality lost that counts, as a share (default 0.1; 0.05 for rmse, mae and r2).",
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    from_study: Annotated[
        str | None,
        typer.Option(help="Start from another study's front and credit.", rich_help_panel=options.SEARCH),
    ] = None,
    from_storage: Annotated[
        str | None,
        typer.Option(
            help="SQLAlchemy URL of that study (default: --storage).", rich_help_panel=options.SEARCH
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Objective besides the task's metric; repeatable. One of {', '.join(_NAMES)} "
            f"(default: {', '.join(DEFAULT_OBJECTIVES)}).",
            rich_help_panel=options.LIMITS,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Device to measure for: cpu, cpu:N (N threads), cpu@openvino, cpu@torch, cuda, cuda:N "
            "(GPU N), or a .json file.",
            rich_help_panel=options.LIMITS,
        ),
    ] = "cpu",
    max_quality_drop: Annotated[
        float | None,
        typer.Option(
            help="Maximum loss of the metric on selection, in its unit.", rich_help_panel=options.LIMITS
        ),
    ] = None,
    max_size_mb: Annotated[
        float | None, typer.Option(help="Maximum file size, 10^6 bytes.", rich_help_panel=options.LIMITS)
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(help="Maximum latency of one call, ms.", rich_help_panel=options.LIMITS),
    ] = None,
    max_memory_mb: Annotated[
        float | None,
        typer.Option(help="Maximum peak memory of a process, 10^6 bytes.", rich_help_panel=options.LIMITS),
    ] = None,
    max_energy_mj: Annotated[
        float | None, typer.Option(help="Maximum energy per sample, mJ.", rich_help_panel=options.LIMITS)
    ] = None,
    max_parameters: Annotated[
        float | None, typer.Option(help="Maximum number of parameters.", rich_help_panel=options.LIMITS)
    ] = None,
    max_macs: Annotated[
        float | None,
        typer.Option(help="Maximum multiply-accumulates per sample.", rich_help_panel=options.LIMITS),
    ] = None,
    epochs: Annotated[
        int,
        typer.Option(help="Maximum epochs of one pipeline.", rich_help_panel=options.TRAINING),
    ] = 6,
    data_fraction: Annotated[
        float,
        typer.Option(help="Share of the training data in an epoch.", rich_help_panel=options.TRAINING),
    ] = 1.0,
    train_threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads for training (default: the cores divided by --workers).",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    train_precision: Annotated[
        TrainPrecision,
        typer.Option(
            metavar="<str>",
            help="Forward passes: auto (default), float32, bfloat16.",
            show_default=False,
            rich_help_panel=options.TRAINING,
        ),
    ] = "auto",
    tune_inference: Annotated[
        str | None,
        typer.Option(
            help="Measure files as they are best served: throughput, latency, energy or memory.",
            rich_help_panel=options.LIMITS,
        ),
    ] = None,
    rungs: Annotated[
        bool,
        typer.Option(
            "--rungs",
            help="Stop training weak pipelines early (successive halving).",
            rich_help_panel=options.RUNGS,
        ),
    ] = False,
    rung_epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of the first rung's budget (default 1).", rich_help_panel=options.RUNGS),
    ] = None,
    rung_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the data at the first rung (default 0.25).", rich_help_panel=options.RUNGS
        ),
    ] = None,
    rung_eta: Annotated[
        float | None,
        typer.Option(
            help="Let the best 1/ETA of a rung train on (default 5).", rich_help_panel=options.RUNGS
        ),
    ] = None,
    rung_levels: Annotated[
        int | None,
        typer.Option(
            help="Number of rungs, counted from the lowest (default 1).", rich_help_panel=options.RUNGS
        ),
    ] = None,
    storage: options.Storage = DEFAULT_URL,
    study: options.StudyName = None,
    data_root: options.DataRoot = None,
    checkpoint: options.Checkpoint = None,
    cache: options.NewCache = None,
    workers: options.Workers = 1,
    quiet: options.Quiet = False,
) -> None:
    """Search for the Pareto front of a task's model; continue the study if it exists.

    Example: petra run digits --trials 24 --storage sqlite:///storage/digits.db
    """
    stop = _stop(trials, timeout, generations, stagnation, target) or Stop()
    budget = Budget(epochs, data_fraction)
    limits = Limits(
        size_bytes=_scaled("--max-size-mb", max_size_mb, 1e6),
        latency_ms=max_latency_ms,
        quality_drop=max_quality_drop,
        peak_memory_bytes=_scaled("--max-memory-mb", max_memory_mb, 1e6),
        energy_j=_scaled("--max-energy-mj", max_energy_mj, 1e-3),
        parameters=max_parameters,
        macs=max_macs,
    )
    for metric in objective or ():
        efficiency_metric(metric)  # before the task is prepared
    ladder = _rungs(
        rungs, min_epochs=rung_epochs, min_fraction=rung_fraction, eta=rung_eta, levels=rung_levels
    )
    profile = DeviceProfile.parse(device)
    space = default_space(max_length, profile.runtime, profile.name, untrained=mode == "untrained")
    source = TaskSource.of(task, data_root, checkpoint)
    database = open_storage(storage)  # before minutes go into the task
    name = study or task
    origin = origin_of(name, storage, from_study, from_storage)
    if origin is not None and ":" not in name:
        check_origin(database, name, origin, from_storage or storage)
    console = make_console(quiet)
    with busy(console, f"preparing task {task}"):
        built = task_of(source, cache or cache_folder(storage))
    with trial_progress(console, stop.trials) as callback:
        searched = optimize(
            built,
            stop=stop,
            storage=storage,
            name=study,
            space=space,
            budget=budget,
            limits=limits,
            rungs=ladder,
            objectives=objective or DEFAULT_OBJECTIVES,
            profile=profile,
            seed=seed,
            population_size=population,
            train_threads=train_threads,
            train_precision=train_precision,
            tune_inference=tune_inference,
            source=source,
            mode=mode,
            cache=cache,
            from_study=from_study,
            from_storage=from_storage,
            sensitivity=sensitivity,
            region=region,
            workers=workers,
            callbacks=[callback],
        )
    _conclude(searched, storage, console)


def resume(
    context: typer.Context,
    storage: options.Storage = DEFAULT_URL,
    study: options.StudyName = None,
    trials: options.Trials = None,
    timeout: options.Timeout = None,
    generations: options.Generations = None,
    stagnation: options.StagnationTrials = None,
    target: options.Target = None,
    task: options.UserTask = None,
    data_root: options.DataRoot = None,
    checkpoint: options.Checkpoint = None,
    cache: options.StoredCache = None,
    workers: options.Workers = 1,
    quiet: options.Quiet = False,
    helper: options.Helper = False,
) -> None:
    """Continue a stored study; interrupted trials are run again first.

    Without --trials, --timeout or another stop criterion, those of the study's last run apply.

    Example: petra resume --storage sqlite:///storage/digits.db --study digits
    """
    stored = load_study(open_storage(storage, must_exist=True), study)
    if is_tuning(stored):
        options.refuse_for_tuning(
            context, "generations", "stagnation", "target", "task", "checkpoint", "workers"
        )
        resume_tuning(stored, storage, trials, timeout, data_root, cache, quiet)
        return
    specification = StudyRecord(stored).specification
    stop = stop_of(stored, _stop(trials, timeout, generations, stagnation, target))
    console = make_console(quiet)
    watch = ParentWatch(sys.stdin.fileno()) if helper else None
    source = stored_source(specification, task, data_root, checkpoint)
    with busy(console, f"preparing task {source.name}"):
        built = task_of(source, cache or Path(specification.cache))
    if watch is not None and watch.parent_ended:
        return
    with trial_progress(console, stop.trials) as callback:
        searched = resume_study(
            built,
            storage=storage,
            name=stored.study_name,
            stop=stop,
            source=source,
            cache=cache,
            workers=workers,
            callbacks=[callback] if watch is None else [watch],
        )
    if watch is None:
        _conclude(searched, storage, console)


def _stop(
    trials: int | None,
    timeout: float | None,
    generations: int | None,
    stagnation: int | None,
    target: list[str] | None,
) -> Stop | None:
    """What the options say; None where they say nothing."""
    ends = (trials, timeout, generations, stagnation, _targets(target))
    return None if ends == (None,) * len(ends) else Stop(*ends)


def _scaled(option: str, given: float | None, unit: float) -> float | None:
    """The limit in the library's unit; one that is wrong is told in the option's."""
    if given is not None and not given > 0:
        raise UserError(f"{option} must be positive, got {given:g}")
    return None if given is None else given * unit


def _rungs(asked: bool, **given: float | None) -> Rungs | None:
    """The ladder with what was given and defaults for the rest; None where no rungs are asked for."""
    named = {name: value for name, value in given.items() if value is not None}
    if named and not asked:
        raise UserError("--rung-epochs, --rung-fraction, --rung-eta and --rung-levels need --rungs")
    return Rungs(**named) if asked else None  # type: ignore[arg-type]  # two of them come as ints


def _targets(given: list[str] | None) -> dict[str, float] | None:
    targets = {}
    for text in given or ():
        name, _, value = text.partition("=")
        try:
            targets[name] = float(value)
        except ValueError:
            raise UserError(f"--target must be NAME=VALUE with a number, got {text!r}") from None
    return targets or None


def _conclude(study: optuna.Study, storage: str, console: Console) -> None:
    with without_collection():
        pareto = publish(study)
    console.print(as_table(pareto))
    added = added_line(StudyRecord(study).added_trials())
    for line in (standing_line(pareto), limits_line(pareto), added):
        if line:
            console.print(line, soft_wrap=True)
    url = shown_url(parse_url(storage))
    where = f"--storage {url} --study {study.study_name}"
    console.print(f"Files of a trial: petra export {where} --trial N --out DIR", soft_wrap=True)
    console.print(f"In the browser:   petra dashboard --storage {url}", soft_wrap=True)
