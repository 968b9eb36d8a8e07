"""Print what a search makes of InceptionTime on sets of the UCR and UEA archives, one row a set.

    pip install petra-optuna[ucr]
    python -m studies.ucr_inceptiontime --trials 40
    python -m studies.ucr_inceptiontime --sets GunPoint JapaneseVowels --random

The sets are those that sktime brings; ``--data-root`` reads others. For each set a base is trained on the
first call, a search is run, and its front is confirmed on test. Of the files at least 90 % smaller than the
original the row shows the one best on selection. Below stands the mean over the sets. Series of several
lengths are padded to the longest of a batch, and the file takes their lengths; it is measured on series of
the 90th percentile. A run that is interrupted goes on where it ended when the same command is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from petra_optuna.results import Confirmation
from petra_optuna.results.confirmation.record import Member
from petra_optuna.study import TaskSource
from studies import script
from studies.searched import Search, add_arguments
from studies.series.ucr import SETS, read_set, task_of

SMALLER = 0.1
"""Largest share of the original's bytes."""
HEADER = (
    *("set", "train", "selection", "test", "classes", "original on test, %", "low", "high"),
    *(
        "pipeline",
        "test, %",
        "lost, points",
        "low",
        "high",
        "smaller, %",
        "times as fast",
        "throughput, times",
    ),
)


def main() -> None:
    """Print the time axis of each set, then the table."""
    parser = script.parser(__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS), metavar="SET")
    parser.add_argument("--data-root", type=Path, help="folder of other sets, <set>/<set>_TRAIN.ts")
    parser.add_argument("--base-epochs", type=int, default=40, help="epochs of each base's training")
    add_arguments(parser, "storage/ucr_inceptiontime")
    arguments = parser.parse_args()
    sets = [read_set(name, arguments.data_root) for name in arguments.sets]
    for data in sets:
        print(data.axis)
    print()
    lost: list[float] = []
    notes: list[str] = []
    script.print_table(HEADER, _rows(arguments, lost, notes))
    if lost:
        print(f"\nlost, points: mean {np.mean(lost):.2f} over {len(lost)} of {len(sets)} sets")
    for note in notes:
        print(note)


def _rows(arguments: argparse.Namespace, lost: list[float], notes: list[str]) -> Iterator[list[object]]:
    """One row a set; the points lost are added to ``lost``, lines on the search to ``notes``."""
    for name in arguments.sets:
        data = read_set(name, arguments.data_root)
        cache = arguments.folder / "cache"
        task = task_of(data, cache, epochs=arguments.base_epochs)
        search = Search(task, arguments, name, TaskSource(name))
        study = search.run()
        confirmation = search.confirmed(study)
        base = confirmation.baseline["accuracy"]
        assert task.test is not None
        trained = len(data.train.series) - len(task.selection)
        sizes = (trained, len(task.selection), len(task.test), len(task.labels))
        original = [f"{100 * value:.2f}" for value in (base.value, base.low, base.high)]
        member = _smallest_good(confirmation)
        if member is None:
            yield [name, *sizes, *original, f"none is {100 * (1 - SMALLER):.0f} % smaller", *[""] * 7]
        else:
            lost.append(-100 * member.difference.value)
            yield [name, *sizes, *original, *_cells(confirmation, member)]
        if arguments.random:
            notes.append(f"{name}: {search.against_random(study)}")


def _smallest_good(confirmation: Confirmation) -> Member | None:
    """Of the members that are small enough, the one best on selection; the smaller one of equals."""
    most = SMALLER * confirmation.baseline["size_bytes"].value
    small = [member for member in confirmation.members if member.values["size_bytes"].value <= most]
    if not small:
        return None
    return max(small, key=lambda member: (member.selection["accuracy"], -member.values["size_bytes"].value))


def _cells(confirmation: Confirmation, member: Member) -> list[str]:
    base, values, difference = confirmation.baseline, member.values, member.difference
    points = (-difference.value, -difference.high, -difference.low)
    return [
        member.pipeline,
        f"{100 * values['accuracy'].value:.2f}",
        *(f"{100 * value:+.2f}" for value in points),
        f"{100 * (1 - values['size_bytes'].value / base['size_bytes'].value):.1f}",
        f"{base['latency_ms'].value / values['latency_ms'].value:.2f}",
        f"{values['throughput_per_s'].value / base['throughput_per_s'].value:.2f}",
    ]


if __name__ == "__main__":
    script.run(main)
