"""Print what a study on digits finds at each seed, and what it loses on test, which the search never saw.

    python -m studies.digits_seeds --seeds 3 --trials 24

For each seed a base is trained and a study run. Of the front's points with at most 25 % of the original's
size, at most one point lost on selection and at least 1.5 times the throughput, the one best on selection is
measured on test. One row a seed, then mean and spread of the loss.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from petra_optuna import build_task, front, optimize
from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget
from petra_optuna.results import Row, StudyFront
from petra_optuna.study import StudyRecord, TaskSource
from petra_optuna.tasks import Task
from studies import script

MAX_SIZE, MAX_LOSS, MIN_SPEEDUP = 0.25, 0.01, 1.5
HEADER = (
    *("seed", "trial", "pipeline", "size, %", "throughput, times", "lost on selection, points"),
    *("test, %", "original on test, %", "lost on test, points", "front"),
)


def main() -> None:
    """Run the studies and print their rows."""
    parser = script.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of studies")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train-threads", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=Path("storage/digits_seeds"))
    arguments = parser.parse_args()
    losses: list[float] = []
    script.print_table(HEADER, _rows(arguments, losses))
    print(f"\nlost on test, points: mean {np.mean(losses):.2f}, standard deviation {np.std(losses):.2f}")


def _rows(arguments: argparse.Namespace, losses: list[float]) -> Iterator[list[object]]:
    """One row a seed; the points lost on test are added to ``losses``."""
    for seed in range(arguments.seeds):
        task = build_task("digits", cache_dir=arguments.folder / "cache", seed=seed)
        study = optimize(
            task,
            trials=arguments.trials,
            storage=f"sqlite:///{arguments.folder}/study.db",
            name=f"digits-{seed}",
            seed=seed,
            budget=Budget(epochs=arguments.epochs),
            train_threads=arguments.train_threads,
            source=TaskSource(f"digits with seed {seed}"),
            cache=arguments.folder / "cache",
        )
        points = front(study)
        row, record = _best_within_limits(points, task), StudyRecord(study)
        with tempfile.TemporaryDirectory() as folder:
            qualities = []
            for trial in (row.trial, 0):
                path = Path(folder, f"{trial}.onnx")
                record.fetch(record.evaluation(trial)["artifact"]["id"], path)
                qualities.append(script.quality_on_test(path, task))
        quality, original = qualities
        losses.append(100 * (original - quality))
        size = row.values["size_bytes"] / points.baseline["size_bytes"]
        speedup = row.values["throughput_per_s"] / points.baseline["throughput_per_s"]
        lost = 100 * (points.baseline["accuracy"] - row.values["accuracy"])
        cells = (f"{100 * size:.1f}", f"{speedup:.2f}", f"{lost:+.2f}")
        tested = (f"{100 * quality:.2f}", f"{100 * original:.2f}", f"{losses[-1]:+.2f}")
        yield [seed, row.trial, row.pipeline, *cells, *tested, len(points.rows)]


def _best_within_limits(points: StudyFront, task: Task) -> Row:
    metric = task.metric.name
    within = [
        row
        for row in points.rows
        if row.values["size_bytes"] <= MAX_SIZE * points.baseline["size_bytes"]
        and row.values[metric] >= points.baseline[metric] - MAX_LOSS
        and row.values["throughput_per_s"] >= MIN_SPEEDUP * points.baseline["throughput_per_s"]
    ]
    if not within:
        raise UserError("no point of the front holds the promise")
    return max(within, key=lambda row: (row.values[metric], -row.values["size_bytes"]))


if __name__ == "__main__":
    script.run(main)
