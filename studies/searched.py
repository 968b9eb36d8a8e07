"""A search, its front confirmed on test, and the table of the PETRA paper (arXiv 2510.09566) of it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna

from petra_optuna import confirm, confirmation_of, front, optimize
from petra_optuna.evaluation import Budget
from petra_optuna.results import Confirmation, study_hypervolume
from petra_optuna.results.confirmation.record import Member
from petra_optuna.study import TaskSource
from petra_optuna.tasks import Task
from studies import script

HEADER = (
    *("pipeline", "quality on test", "low", "high", "change, %", "low", "high", "over seeds", "size, MB"),
    *("change, %", "latency, ms", "times as fast", "throughput, 1/s", "times"),
)


def add_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the arguments of a search."""
    parser.add_argument("--trials", type=int, default=40, help="trials of each search")
    parser.add_argument("--epochs", type=int, default=6, help="most epochs of one pipeline")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search and of all training")
    parser.add_argument("--retrainings", type=int, default=3, help="retrainings of each member of the front")
    parser.add_argument("--random", action="store_true", help="also search at random, for as many trials")
    parser.add_argument("--train-threads", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=Path(folder), help="folder of database and caches")


@dataclasses.dataclass(frozen=True)
class Search:
    """Searches of one task, continued where an earlier run of the script ended.

    Attributes:
        task: Task to search.
        arguments: What ``add_arguments`` reads.
        name: Name of the study.
        source: How helpers could build the task; by its name alone where they cannot.
    """

    task: Task
    arguments: argparse.Namespace
    name: str
    source: TaskSource

    def run(self, sampler: optuna.samplers.BaseSampler | None = None, suffix: str = "") -> optuna.Study:
        """The study with all of its trials."""
        given = self.arguments
        return optimize(
            self.task,
            trials=given.trials,
            storage=f"sqlite:///{given.folder}/study.db",
            name=f"{self.name}{suffix}",
            budget=Budget(epochs=given.epochs),
            seed=given.seed,
            train_threads=given.train_threads,
            source=self.source,
            sampler=sampler,
        )

    def report(self) -> None:
        """Print the front on test, and the hypervolume beside that of a random search where one is wanted."""
        study = self.run()
        confirmation = self.confirmed(study)
        script.print_table(HEADER, table_rows(confirmation))
        print(f"\n{resolution(confirmation)}")
        if self.arguments.random:
            print(self.against_random(study))

    def confirmed(self, study: optuna.Study) -> Confirmation:
        """The front on test, from the study where it was confirmed before."""
        stored = confirmation_of(study)
        return stored or confirm(study, self.task, seeds=self.arguments.retrainings)

    def against_random(self, study: optuna.Study) -> str:
        """One line: the hypervolume of the search and of a random one of as many trials."""
        random = self.run(optuna.samplers.RandomSampler(seed=self.arguments.seed), "-random")
        evolved, drawn = study_hypervolume(study), study_hypervolume(random)
        return (
            f"hypervolume: {evolved:.4f} evolved, {drawn:.4f} at random, {len(front(study).rows)} and "
            f"{len(front(random).rows)} rows on the fronts"
        )


def table_rows(
    confirmation: Confirmation, scale: float = 1.0, kept: Callable[[Member], bool] = lambda member: True
) -> Iterator[list[str]]:
    """The baseline and the members of a front under ``HEADER``.

    Args:
        confirmation: Front on test.
        scale: Factor of the quality, 100 for shares.
        kept: Which members get a row.
    """
    name, base = confirmation.metric, confirmation.baseline
    for member in (None, *filter(kept, confirmation.members)):
        values = base if member is None else member.values
        quality = values[name]
        shown = [f"{scale * value:.4g}" for value in (quality.value, quality.low, quality.high)]
        changes = ["", "", ""] if member is None else _changes(member, base[name].value)
        seeds = "" if member is None else _over_seeds(member, scale)
        size, latency = values["size_bytes"].value, values["latency_ms"].value
        throughput = values["throughput_per_s"].value
        yield [
            "original" if member is None else member.pipeline,
            *shown,
            *changes,
            seeds,
            f"{size / 1e6:.3f}",
            f"{100 * (size / base['size_bytes'].value - 1):+.1f}",
            f"{latency:.3f}",
            f"{base['latency_ms'].value / latency:.2f}",
            f"{throughput:.0f}",
            f"{throughput / base['throughput_per_s'].value:.2f}",
        ]


def resolution(confirmation: Confirmation) -> str:
    """One line: the smallest change of quality that the test split tells from none."""
    base = abs(confirmation.baseline[confirmation.metric].value)
    widths = [50 * (member.difference.high - member.difference.low) / base for member in confirmation.members]
    if not widths:
        return "no member was confirmed"
    told = sorted(widths)[len(widths) // 2]
    verdict = "resolves" if told <= 2 else "does not resolve"
    return f"the test split tells changes of {told:.2g} % (median over members): it {verdict} 2 %"


def _changes(member: Member, base: float) -> list[str]:
    difference = member.difference
    return [
        f"{100 * value / abs(base):+.2f}" for value in (difference.value, difference.low, difference.high)
    ]


def _over_seeds(member: Member, scale: float) -> str:
    qualities: Sequence[float] = [run.quality for run in member.seeds if run.quality is not None]
    if not qualities:
        return ""
    return f"{scale * sum(qualities) / len(qualities):.4g} ({len(qualities)})"
