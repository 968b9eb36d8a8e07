"""What the scripts share: arguments, printed tables, small tasks, and how every one ends."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.edgetune import Workload, build_workload
from petra_optuna.errors import UserError
from petra_optuna.evaluation import quality_of
from petra_optuna.measurement import FileMeasurement, Measurement
from petra_optuna.results.report import as_markdown
from petra_optuna.tasks import Task, build_task, open_once

CACHE = Path("storage/cache")
"""Default folder of trained bases and prefixes."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the script's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def task_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that ``given_task`` reads."""
    arguments = parser(description)
    arguments.add_argument("--task", default="digits", help="name of a built-in task")
    arguments.add_argument("--data-root", type=Path, help="folder of the task's data")
    arguments.add_argument("--checkpoint", type=Path, help="weights of the base model")
    return arguments


def given_task(given: argparse.Namespace, cache: Path = CACHE) -> Task:
    """The task that the arguments of ``task_parser`` name."""
    return build_task(given.task, data_root=given.data_root, checkpoint=given.checkpoint, cache_dir=cache)


def workload_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that ``given_workload`` reads."""
    arguments = parser(description)
    arguments.add_argument("workload", help="name of the workload")
    arguments.add_argument("--data-root", type=Path, help="folder of the workload's data")
    return arguments


def given_workload(given: argparse.Namespace) -> Workload:
    """The workload that the arguments of ``workload_parser`` name."""
    return build_workload(given.workload, data_root=given.data_root, cache_dir=CACHE, seed=0)


def synthetic_task(
    model: nn.Module, inputs: Tensor, targets: Tensor, metric: str = "accuracy", name: str = "synthetic"
) -> Task:
    """A task on tensors made up for a timing; selection is every eighth sample.

    Args:
        model: The original.
        inputs: Samples, (n, ...).
        targets: Targets, (n,).
        metric: Name of the quality.
        name: Name of the task, for tables.
    """
    selected = torch.arange(len(inputs)) % 8 == 0
    parts = [TensorDataset(inputs[rows], targets[rows]) for rows in (~selected, selected)]
    train, selection = (DataLoader(part, batch_size=64) for part in parts)
    return Task.from_loaders(model, train, selection, metric=metric, name=name)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table, each row as soon as it is there."""
    print(as_markdown(header, ()), flush=True)
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def interval(values: Sequence[float]) -> tuple[str, str]:
    """Mean of shares and half width of its 95 % interval (Student's t), in percent, as two cells."""
    spread = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{100 * np.mean(values):.1f}", f"{100 * spread:.1f}"


def ratio_cells(measurement: Measurement) -> tuple[str, str, str]:
    """Time over that of the baseline, and the ends of its 95 % interval, as three cells."""
    return f"{measurement.ratio:.3f}", f"{measurement.ratio_low:.3f}", f"{measurement.ratio_high:.3f}"


def by_batch(measurement: FileMeasurement) -> tuple[Measurement, ...]:
    """A file's latency, then its throughputs by batch size."""
    return measurement.latency, *measurement.throughput


def quality_on_test(path: Path, task: Task) -> float:
    """Quality of a file on the test split, which is opened for it; on as many threads as PyTorch has."""
    assert task.test is not None
    return quality_of(path, task, open_once(task.test), torch.get_num_threads())


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run(main: Callable[[], None]) -> None:
    """Run a script's main function; what its user can mend ends in one line on stderr and exit code 2."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
