"""The command that finds how to serve the file of a finished trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from petra_optuna.cli import options
from petra_optuna.cli.console import busy, make_console
from petra_optuna.cli.tasks import stored_task
from petra_optuna.database import DEFAULT_URL, absolute_url, cache_folder, open_storage
from petra_optuna.edgetune import TuningResult, for_requests, is_tuning, result_of, stored_workload
from petra_optuna.errors import UserError
from petra_optuna.inference import (
    DEFAULT_ALGORITHM,
    INFERENCE_OBJECTIVES,
    MAX_BATCH,
    THIS_MACHINE,
    InferenceTuner,
    Recommendation,
    inference_objective,
    parse_device,
    serving_cores,
)
from petra_optuna.inference.scenarios import FORMS, Scenario, parse_scenario
from petra_optuna.results import (
    recommend_trial,
    recommendation_lines,
    recommendation_table,
    request_lines,
)
from petra_optuna.study import StudyRecord, load_study

_OBJECTIVES = ", ".join(known.name for known in INFERENCE_OBJECTIVES)


def recommend(
    context: typer.Context,
    trial: Annotated[
        int | None,
        typer.Option(help="Trial number, as `petra front` shows it (of a tuning study: its best)."),
    ] = None,
    storage: options.Storage = DEFAULT_URL,
    study: options.StudyName = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help=f"What serving is tuned for: {_OBJECTIVES} (default: throughput).",
            rich_help_panel=options.LIMITS,
        ),
    ] = None,
    device: options.OtherServingDevice = None,
    cap: options.Cap = False,
    max_batch: options.MaxBatch = MAX_BATCH,
    energy_estimator: options.EnergyEstimator = None,
    algorithm: Annotated[
        str, typer.Option(help="Search algorithm; see `petra tune --help`.", rich_help_panel=options.SEARCH)
    ] = DEFAULT_ALGORITHM,
    scenario: Annotated[
        str | None,
        typer.Option(
            help=f"How requests arrive, to recommend batch and wait: {FORMS}.",
            rich_help_panel=options.LIMITS,
        ),
    ] = None,
    task: options.UserTask = None,
    data_root: options.DataRoot = None,
    checkpoint: options.Checkpoint = None,
    cache: options.StoredCache = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the recommendation as JSON.")] = False,
) -> None:
    """Find batch size, threads, cores and runtime for a finished trial's file, and keep them with the study.

    `petra export` then writes them as deployment.json, which run.py uses. A tuning study holds its
    recommendation already; it is printed.

    Example: petra recommend --storage sqlite:///storage/digits.db --study digits --trial 4
    """
    requests = None if scenario is None else parse_scenario(scenario)
    console = make_console()
    database = open_storage(storage, must_exist=True)
    stored = load_study(database, study)
    if is_tuning(stored):
        options.refuse_for_tuning(
            context,
            *("objective", "device", "cap", "max_batch", "energy_estimator", "algorithm"),
            *("task", "checkpoint"),
        )
        answer = _of_tuning(result_of(stored, trial), requests, storage, data_root, cache, console)
    else:
        if trial is None:
            raise UserError("give --trial, a number that `petra front` shows")
        StudyRecord(stored).evaluation(trial)  # before minutes go into the task
        chosen = parse_device(device or THIS_MACHINE, cap=cap)
        tuner = InferenceTuner(
            storage=database,
            device=chosen,
            cores=serving_cores(chosen),
            objective=inference_objective(objective or INFERENCE_OBJECTIVES[0].name),
            max_batch=max_batch,
            algorithm=algorithm,
            energy=energy_estimator or InferenceTuner.energy,
        )
        with busy(console, "measuring how the file is served best"):
            built = stored_task(StudyRecord(stored).specification, task, data_root, checkpoint, cache)
            answer = recommend_trial(stored, trial, built, tuner, requests)
    if as_json:
        typer.echo(json.dumps(answer.to_dict(), indent=2))
        return
    console.print(recommendation_table(answer))
    for line in (*recommendation_lines(answer), *request_lines(answer)):
        console.print(line, soft_wrap=True)


def _of_tuning(
    result: TuningResult,
    requests: Scenario | None,
    storage: str,
    data_root: Path | None,
    cache: Path | None,
    console: Console,
) -> Recommendation:
    answer = result.recommendation
    if answer is None:
        raise UserError("the tuning study has no inference objective, so it recommends no settings")
    if requests is None:
        return answer
    with busy(console, "measuring how requests are served best"):
        built = stored_workload(result.specification, data_root, cache or cache_folder(storage))
        return for_requests(result, built, absolute_url(storage), requests)
