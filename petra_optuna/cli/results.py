"""The commands that read a study: front, export, dashboard."""

from __future__ import annotations

import contextlib
import enum
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Annotated
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer
from optuna.artifacts import FileSystemArtifactStore

from petra_optuna.cli import options
from petra_optuna.cli.console import make_console
from petra_optuna.cli.tasks import stored_task
from petra_optuna.database import DEFAULT_URL, absolute_url, artifacts_folder, cache_folder, open_storage
from petra_optuna.edgetune import export_tuned, is_tuning, result_of, stored_workload
from petra_optuna.errors import StudyError, UserError
from petra_optuna.results import (
    added_line,
    as_csv,
    as_html,
    as_json,
    as_table,
    confirmation_of,
    confirmed_table,
    export_trial,
    ledger_line,
    limits_line,
    standing_line,
)
from petra_optuna.results import front as front_of
from petra_optuna.samplers import without_collection
from petra_optuna.study import StudyRecord, load_study, warm_start_line


class Format(enum.StrEnum):
    """How a front is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def front(
    storage: options.Storage = DEFAULT_URL,
    study: options.StudyName = None,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.TABLE,
    all_rows: Annotated[
        bool,
        typer.Option("--all", help="Also show trials that tie with the front or lie below the region."),
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Also write an interactive page to this file.")] = None,
) -> None:
    """Print the Pareto front of a study and, if there is one, its confirmation on the test split.

    Example: petra front --storage sqlite:///storage/digits.db --format json
    """
    with without_collection():
        stored = load_study(open_storage(storage, read_only=True), study)
        pareto, confirmation = front_of(stored), confirmation_of(stored)
    if format == Format.TABLE:
        make_console().print(as_table(pareto, all_rows=all_rows))
        typer.echo(ledger_line(pareto.ledger))
        added = added_line(StudyRecord(stored).added_trials())
        for line in (standing_line(pareto), limits_line(pareto), added, warm_start_line(stored)):
            if line:
                typer.echo(line)
        if confirmation is not None:
            make_console().print(confirmed_table(confirmation))
    else:
        details = None if confirmation is None else confirmation.to_dict()
        as_text = as_json(pareto, details) if format == Format.JSON else as_csv(pareto, all_rows=all_rows)
        typer.echo(as_text.rstrip("\n"))
    if html is not None:
        try:
            html.write_text(as_html(pareto), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{html} cannot be written ({error.strerror}); give another --html") from error


def export(
    context: typer.Context,
    trial: Annotated[int, typer.Option(help="Trial number, as `petra front` shows it.")],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.")],
    storage: options.Storage = DEFAULT_URL,
    study: options.StudyName = None,
    task: options.UserTask = None,
    data_root: options.DataRoot = None,
    checkpoint: options.Checkpoint = None,
    cache: options.StoredCache = None,
) -> None:
    """Write a trial's model as a folder that needs only its runtime and numpy.

    The export fails unless the file reproduces the quality that the trial stored on the selection split.

    Example: petra export --storage sqlite:///storage/digits.db --trial 4 --out exported
    """
    stored = load_study(open_storage(storage, read_only=True), study)
    if is_tuning(stored):
        options.refuse_for_tuning(context, "task", "checkpoint")
        result = result_of(stored, trial)
        tuned = stored_workload(result.specification, data_root, cache or cache_folder(storage))
        export_tuned(result, tuned.task, absolute_url(storage), out)
        quality = f"{tuned.task.metric.name} {result.record.quality:.4f}"
        typer.echo(f"{out}: {quality} on the selection split, as stored")
        return
    specification = StudyRecord(stored).specification
    built = stored_task(specification, task, data_root, checkpoint, cache)
    exported = export_trial(stored, trial, out, built)
    typer.echo(
        f"{exported.folder}: {specification.metric} {exported.quality:.4f} on the selection split, "
        f"stored {exported.stored:.4f}"
    )


def dashboard(
    storage: options.Storage = DEFAULT_URL,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
) -> None:
    """Serve the studies of a database in optuna-dashboard, with their fronts and files.

    Example: petra dashboard --storage sqlite:///storage/digits.db --port 8080
    """
    import optuna_dashboard  # takes a second, and the other commands do without

    database = open_storage(storage, must_exist=True)
    folder = artifacts_folder(storage)
    if not folder.is_dir():
        raise StudyError(f"there is no artifact folder {folder} beside the database; was it moved?")
    application = optuna_dashboard.wsgi(database, artifact_store=FileSystemArtifactStore(str(folder)))
    try:
        server = make_server(host, port, application, _Server, _Handler)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot listen on {host}:{port} ({reason}); give another --host or --port"
        ) from error
    typer.echo(f"http://{host}:{server.server_port}/dashboard  (Ctrl-C ends it)")
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request, so that a page's many files and a second reader do not queue."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """Says nothing of requests that went well."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""
