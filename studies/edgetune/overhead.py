"""Print what the inference server costs a tuning study, and that a second study measures nothing new.

    python -m studies.edgetune.overhead sr --data-root data/fsdd

Figure 14 of EDGETUNE. The same trials are trained with and without the inference server, in turn, training
on one core in both arms. The objective is the quality, so that both arms train the same. The third arm is
another study with the server over the same architectures, in the same database.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna

from petra_optuna.edgetune import TuningBudget, Workload, counts_of, record_of, tune
from studies import script

ARMS = (("without", None), ("with", "throughput"), ("with, again", "throughput"))


def main() -> None:
    """Print the table."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    workload = script.given_workload(given)
    header = (
        *("seed", "server", "trials", "tuning time, s", "of without, %", "training, s"),
        *("searches", "from history", "waits", "waited, s"),
    )
    script.print_table(header, _rows(workload, given))


def _rows(workload: Workload, given: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            alone_s = 0.0
            for name, objective in ARMS:
                began = time.perf_counter()
                study = _tuned(workload, name, objective, seed, Path(folder), given)
                seconds = time.perf_counter() - began
                alone_s = alone_s or seconds
                records = [record_of(trial) for trial in study.get_trials()]
                trained_s = sum(record.rungs[-1].train_s for record in records if record is not None)
                counts = counts_of(study)
                yield (
                    *(seed, name, len(records), f"{seconds:.1f}", f"{100 * seconds / alone_s:.1f}"),
                    *(f"{trained_s:.1f}", counts.searches, counts.hits, counts.waits),
                    f"{counts.waited_s:.1f}",
                )


def _tuned(
    workload: Workload, name: str, objective: str | None, seed: int, folder: Path, given: argparse.Namespace
) -> optuna.Study:
    return tune(
        workload,
        objective="quality",
        inference_objective=objective,
        budget=TuningBudget("epoch", max_epochs=given.max_epochs),
        algorithm="random",
        trials=given.trials,
        storage=folder / "study.db",
        name=name,
        train_threads=1,
        seed=seed,
    )


def _arguments() -> argparse.Namespace:
    parser = script.workload_parser(__doc__)
    parser.add_argument("--trials", type=int, default=6, help="trials of each arm")
    parser.add_argument("--max-epochs", type=int, default=4, help="epochs of a trial")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
