"""The command that shows what each layer of a model bears."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from petra_optuna.cli import options
from petra_optuna.cli.console import make_console
from petra_optuna.cli.tasks import task_of
from petra_optuna.evaluation import Curve, PrefixCache, priors_from_sensitivity, sensitivity_of
from petra_optuna.measurement import available_cores
from petra_optuna.operations import default_space
from petra_optuna.study import DEFAULT_CACHE, TaskSource, training_threads


def sensitivity(
    task: Annotated[str, typer.Argument(help="A built-in task (see `petra tasks`) or module:callable.")],
    data_root: options.DataRoot = None,
    checkpoint: options.Checkpoint = None,
    cache: options.Cache = DEFAULT_CACHE,
) -> None:
    """Print how quality falls as each layer alone is cut, and where new nodes begin with --sensitivity.

    FileMeasurement on calibration data, without training, once per model; then read from the cache.

    Example: petra sensitivity digits
    """
    console = make_console()
    with console.status(f"measuring the layers of {task}"), training_threads(available_cores()):
        built = task_of(TaskSource.of(task, data_root, checkpoint), cache)
        found = sensitivity_of(built, PrefixCache(cache))
    table = Table(title=f"{found.metric} on {found.samples} calibration samples, each layer cut alone")
    for heading in ("operation", "layer", "size", "share cut: quality"):
        table.add_column(heading)
    for curve in found.curves:
        table.add_row(curve.operation, curve.layer, str(curve.size), _points(curve))
    console.print(table)
    for name, why in found.left_out.items():
        typer.echo(f"no curve of {name}: {why}")
    for start in priors_from_sensitivity(found, default_space()):
        beside = ", ".join(f"{name} {value}" for name, value in start.when.items())
        typer.echo(f"begins at {start.operation} {start.field} {start.value:.2f} ({beside or 'always'})")


def _points(curve: Curve) -> str:
    return ", ".join(f"{point.strength:.2f}: {point.quality:.3f}" for point in curve.points)
