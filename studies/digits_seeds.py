"""Does the digits study hold its promise over seeds, on data that the search never saw?

    python -m studies.digits_seeds --seeds 3 --trials 24

For each seed a base is trained and a study run. Of the front's points with at most 25 % of the
original's size, at most one point lost on selection and at least 1.5 times the throughput, the one best
on selection is measured on test. One line per seed, then mean and spread.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from petra_optuna import build_task, front, optimize
from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget, quality_of
from petra_optuna.results import Row, StudyFront
from petra_optuna.study import StudyRecord, TaskSource
from petra_optuna.tasks import Task, open_once
from studies import script

MOST_SIZE, MOST_LOSS, LEAST_SPEEDUP = 0.25, 0.01, 1.5


def main() -> None:
    """Run the studies and print what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train-threads", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=Path("storage/digits_seeds"))
    arguments = parser.parse_args()
    losses = [_one(seed, arguments) for seed in range(arguments.seeds)]
    print(f"loss on test, points: mean {np.mean(losses):.2f}, standard deviation {np.std(losses):.2f}")


def _one(seed: int, arguments: argparse.Namespace) -> float:
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
    found = front(study)
    row, record = _chosen(found, task), StudyRecord(study)
    assert task.test is not None
    with tempfile.TemporaryDirectory() as folder:
        qualities = []
        for trial in (row.trial, 0):
            path = Path(folder, f"{trial}.onnx")
            record.fetch(record.evaluation(trial)["artifact"]["id"], path)
            qualities.append(quality_of(path, task, open_once(task.test)))
    quality, original = qualities
    size = row.values["size_bytes"] / found.baseline["size_bytes"]
    speedup = row.values["throughput_per_s"] / found.baseline["throughput_per_s"]
    lost = 100 * (found.baseline["accuracy"] - row.values["accuracy"])
    print(
        f"seed {seed}: trial {row.trial} {row.pipeline}: size {100 * size:.1f} %, throughput {speedup:.2f}x, "
        f"lost on selection {lost:+.2f} points, test {100 * quality:.2f} against {100 * original:.2f}, "
        f"front of {len(found.rows)}",
        flush=True,
    )
    return 100 * (original - quality)


def _chosen(found: StudyFront, task: Task) -> Row:
    name = task.metric.name
    good = [
        row
        for row in found.rows
        if row.values["size_bytes"] <= MOST_SIZE * found.baseline["size_bytes"]
        and row.values[name] >= found.baseline[name] - MOST_LOSS
        and row.values["throughput_per_s"] >= LEAST_SPEEDUP * found.baseline["throughput_per_s"]
    ]
    if not good:
        raise UserError("no point of the front holds the promise")
    return max(good, key=lambda row: (row.values[name], -row.values["size_bytes"]))


if __name__ == "__main__":
    script.run(main)
