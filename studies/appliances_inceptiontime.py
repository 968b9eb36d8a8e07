"""Print how a search compresses InceptionTime on energy use, beside what the PETRA paper reports.

    python -m studies.appliances_inceptiontime --data-root DATA --controls-only
    python -m studies.appliances_inceptiontime --data-root DATA --trials 60 --random
    python -m studies.appliances_inceptiontime --data-root DATA --form archive

First come the controls on selection and on test: the mean of train, persistence, and the original, with 95 %
intervals of a bootstrap that draws whole days. Persistence is the last hour's mean for sliding windows, and
the day before for the archive's. Where the original does not beat both, the case is void, and the script says
so. Then follow the search, its front on test with retrainings, and the paper's figures. A run that is
interrupted goes on where it ended when the same command is given again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from petra_optuna import build_task
from petra_optuna.nn.inputs import Inputs
from petra_optuna.study import TaskSource
from petra_optuna.tasks import Task, open_once
from petra_optuna.tasks.arrays import first_input
from petra_optuna.tasks.series.appliances import HORIZON
from studies import script
from studies.searched import Search, add_arguments
from studies.series import controls

TASKS = {"sliding": "appliances", "archive": "appliances_archive"}
PAPER = (
    ("original", "3.441", "", "2.954", ""),
    ("best honest row", "", "+10.8", "", "-68"),
    ("smallest row", "", "+134", "", "-85"),
)
"""Rows of the paper's table of energy use: RMSE and megabytes, and their changes in percent."""


def main() -> None:
    """Print controls, front and the paper's rows."""
    parser = script.parser(__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of energydata_complete.csv")
    parser.add_argument("--form", choices=TASKS, default="sliding")
    parser.add_argument("--controls-only", action="store_true", help="end before the search")
    add_arguments(parser, "storage/appliances_inceptiontime")
    arguments = parser.parse_args()
    task = _task(arguments)
    holds = _print_controls(task)
    if arguments.controls_only:
        return
    if not holds:
        print("\nThe case is void: the original does not beat the controls.")
    print()
    Search(task, arguments, task.name, TaskSource.of(task.name, arguments.data_root)).report()
    print()
    script.print_table(("the paper", "RMSE", "change, %", "size, MB", "change, %"), PAPER)


def _task(arguments: argparse.Namespace) -> Task:
    return build_task(
        TASKS[arguments.form], data_root=arguments.data_root, cache_dir=arguments.folder / "cache"
    )


def _print_controls(task: Task) -> bool:
    """Print both tables; True where the original beats the controls on test for certain."""
    assert task.test is not None
    mean = float(np.mean(np.concatenate([targets.numpy() for _, targets in task.train.batches(256)])))
    holds = False
    header = ("", *(f"{name}{end}" for name in controls.METRICS for end in ("", ", low", ", high")))
    for name, split in (("selection", task.selection), ("test", open_once(task.test))):
        persistence = _last_hour if task.name == "appliances" else None
        found = controls.predictions(task, split, mean, persistence)
        print(f"\n{name}, {len(split)} samples, {task.preprocess['unit']}\n")
        script.print_table(header, controls.rows(found, task.block))
        best, less = controls.margin(found, task.block)
        print(
            f"\nRMSE of the original: {less.value:.1f} % ({less.low:.1f} to {less.high:.1f}) less than that "
            f"of the best control, {best}"
        )
        holds = less.low > 0
    return holds


def _last_hour(inputs: Inputs) -> np.ndarray:
    """The last hour's mean of the first channel, which is the energy."""
    means: np.ndarray = first_input(inputs)[:, 0, -HORIZON:].mean(dim=1).numpy()
    return means


if __name__ == "__main__":
    script.run(main)
