"""The command that shows how sensitive each layer of a model is to compression."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from petra_optuna.cli import options
from petra_optuna.cli.console import busy, make_console
from petra_optuna.cli.tasks import task_of
from petra_optuna.evaluation import Curve, PrefixCache, priors_from_sensitivity, sensitivity_of
from petra_optuna.measurement import available_cores
from petra_optuna.nn.training import training_threads
from petra_optuna.operations import default_space
from petra_optuna.results import plain_table
from petra_optuna.study import DEFAULT_CACHE, TaskSource


def sensitivity(
    task: Annotated[str, typer.Argument(help="A built-in task (see `petra tasks`) or module:callable.")],
    data_root: options.DataRoot = None,
    checkpoint: options.Checkpoint = None,
    cache: options.Cache = DEFAULT_CACHE,
) -> None:
    """Print how quality falls as each layer alone is compressed, and the priors that follow.

    The curves are measured once per model on calibration data, without training, then cached.
    `petra run --sensitivity` draws the strengths of new nodes near the priors.

    Example: petra sensitivity digits
    """
    console = make_console()
    with busy(console, f"measuring the layers of {task}"), training_threads(available_cores()):
        built = task_of(TaskSource.of(task, data_root, checkpoint), cache)
        curves = sensitivity_of(built, PrefixCache(cache))
    table = plain_table(
        f"{curves.metric} on {curves.samples} calibration samples, one layer compressed at a time"
    )
    for heading in ("operation", "layer", "size", "share removed: quality"):
        table.add_column(heading)
    for curve in curves.curves:
        table.add_row(*map(Text, [curve.operation, curve.layer, str(curve.size), _points(curve)]))
    console.print(table)
    for name, reason in curves.left_out.items():
        typer.echo(f"no curve of {name}: {reason}")
    for prior in priors_from_sensitivity(curves, default_space()):
        condition = ", ".join(f"{name}={value}" for name, value in prior.when.items())
        suffix = f" ({condition})" if condition else ""
        typer.echo(f"prior {prior.operation}.{prior.field} = {prior.value:.2f}{suffix}")


def _points(curve: Curve) -> str:
    return ", ".join(f"{point.strength:.2f}: {point.quality:.3f}" for point in curve.points)
