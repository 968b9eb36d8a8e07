"""Print how much training cache, preview and rungs save on one recorded search, and what trials cost beside.

    python -m studies.benchmarks.evaluation --task cifar10 --data-root DATA --checkpoint FILE --images 10000

A search proposes the pipelines and trains every one to its end: no cache, no preview, no rungs. The same
pipelines in the same order are then evaluated with the parts of each of ``VARIANTS``, in a study each. All
share the baseline and the bounds of the search, frozen before its first trial. A run that was cut off is
continued.

Shares of training time are in seconds of the search: a stopped or cached pipeline's epochs that were not
trained count as long as its epochs took there, so that the machine's load at another time does not count.
The seconds that judging at rungs took come on top, as they were measured. The last table has what a trial
takes beside training, by phase, as it was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial

from petra_optuna.database import open_storage
from petra_optuna.errors import TrialError
from petra_optuna.evaluation import Budget, Limits, PrefixCache, Rungs
from petra_optuna.evolution import hypervolume
from petra_optuna.measurement import DeviceProfile
from petra_optuna.operations import default_space
from petra_optuna.pipeline import Pipeline, SearchSpace, decode
from petra_optuna.samplers import PetraSampler, directions_of
from petra_optuna.study import (
    DEFAULT_POPULATION,
    PETRA,
    Specification,
    StudyRecord,
    TaskSource,
    TrialRecord,
    create_study,
    recorded_trials,
    replay_objective,
    replay_study,
)
from petra_optuna.tasks import Task
from studies import overhead, script

SEARCH = "search"
RUNGS = Rungs()
LEVELS = (4, 8, 16)
"""Shares of the baseline's bytes, 1/4, 1/8 and 1/16, below which the best quality is looked for."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Which parts save training in a variant."""

    cache: bool = False
    preview: bool = False
    rungs: bool = False


VARIANTS = {
    SEARCH: Parts(),
    "cache": Parts(cache=True),
    "cache, preview": Parts(cache=True, preview=True),
    "cache, preview, rungs": Parts(cache=True, preview=True, rungs=True),
}
ALL = "cache, preview, rungs"
SHARES = ("trained", "judging", "cache", "preview", "rungs")
HEADER = (
    *("parts", "epochs", "share of training time", "hypervolume", "share of the search's"),
    "share by the same files",
)
SHARES_HEADER = ("epochs", "share of training time", "count", "of what", "of these on the front")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Training of a pipeline, done or spared: epochs, and seconds of the search."""

    epochs: float
    seconds: float


def main() -> None:
    """Run the variants and print the tables."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(given.train_threads)
    task = script.given_task(given, cache=given.folder / "tasks")
    space, search = default_space(), _search(task, given)
    names = list(VARIANTS) if given.each else [SEARCH, ALL]
    studies = {SEARCH: search}
    for name in names:
        studies[name] = search if name == SEARCH else replay_study(search, name, space)
        _run(studies[name], VARIANTS[name], search, task, space, given)
    specification = StudyRecord(search).specification
    print(f"\n{given.pipelines} pipelines, budget {specification.budget}, {RUNGS}, ", end="")
    print(f"limit {specification.limits.size_bytes:.0f} bytes\n")
    levels = (f"best at 1/{level} of the size, %" for level in LEVELS)
    script.print_table((*HEADER, *levels), rows(studies, space))
    for name in names[1:]:
        print()
        script.print_table((name, *SHARES_HEADER), shares(search, studies[name], space))
    print()
    script.print_table(overhead.HEADER, overhead.rows(studies))


def _arguments() -> argparse.Namespace:
    parser = script.task_parser(__doc__)
    parser.add_argument("--pipelines", type=int, default=40, help="pipelines of the search")
    parser.add_argument("--epochs", type=int, default=1, help="most epochs that one pipeline may train")
    parser.add_argument("--images", type=int, help="training images that an epoch visits; all by default")
    parser.add_argument("--smaller", type=float, default=3.8, help="limit: the original's bytes by this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("storage/evaluation"))
    parser.add_argument("--each", action="store_true", help="run the variants with some of the parts too")
    return parser.parse_args()


def _search(task: Task, given: argparse.Namespace) -> optuna.Study:
    """The search's study; a new one is made with baseline, bounds and controls."""
    folder: Path = given.folder
    bytes_ = sum(4 * parameter.numel() for parameter in task.model.parameters())
    specification = Specification.of(
        task,
        TaskSource.of(given.task, given.data_root, given.checkpoint),
        space=default_space(),
        budget=Budget(given.epochs, given.images / len(task.train) if given.images else 1.0),
        limits=Limits(size_bytes=bytes_ / given.smaller),
        profile=DeviceProfile(),
        seed=given.seed,
        population_size=DEFAULT_POPULATION,
        sampler=PETRA,
        train_threads=given.train_threads,
        artifacts=None,
        cache=folder / "cache",
    )
    storage = open_storage(f"sqlite:///{folder}/evaluation.db")
    study = create_study(storage, SEARCH, task, default_space(), specification)
    study.sampler = PetraSampler(default_space(), seed=given.seed, population_size=DEFAULT_POPULATION)
    return study


def _run(
    study: optuna.Study,
    parts: Parts,
    search: optuna.Study,
    task: Task,
    space: SearchSpace,
    given: argparse.Namespace,
) -> None:
    """Evaluate the pipelines of the variant that are left."""
    cache = PrefixCache(given.folder / "cache" / study.study_name.replace(", ", "-"))
    objective = replay_objective(
        search,
        task,
        space,
        given.folder / "artifacts",
        cache=cache if parts.cache else None,
        limits=StudyRecord(search).specification.limits if parts.preview else Limits(),
        rungs=RUNGS if parts.rungs else None,
    )
    with objective as evaluate:
        left = given.pipelines - len(recorded_trials(study))
        if left > 0:
            study.optimize(evaluate, n_trials=left, catch=(TrialError,), callbacks=[_report])


def _report(study: optuna.Study, trial: FrozenTrial) -> None:
    trained = TrialRecord(trial).ledger.train_s
    print(f"{study.study_name}: trial {trial.number} {trial.state.name}, trained {trained:.1f} s", flush=True)


def costs(trial: FrozenTrial, recorded: FrozenTrial, budget: Budget, space: SearchSpace) -> dict[str, Cost]:
    """Where the training went that a pipeline was allotted: ``trained``, spared by a part, or ``judging``.

    Args:
        trial: Trial of a variant.
        recorded: Trial of the same pipeline in the search.
        budget: Budget of each pipeline.
        space: Search space of the search.
    """
    pipeline: Pipeline = decode(trial.params, space).canonical()
    allotted, ledger = budget.allot(pipeline.body), TrialRecord(trial).ledger
    total = sum(allotted)
    pace = TrialRecord(recorded).ledger.train_s / total if total else 0.0
    cached = sum(allotted[: ledger.cache_hits])
    stopped = {"preview": ledger.preview_stops, "rungs": ledger.rung_stops}
    spared = {name: ledger.saved_epochs * count for name, count in stopped.items()}
    trained = total - cached - sum(spared.values())
    epochs = {"trained": trained, "cache": cached, **spared}
    by_part = {name: Cost(count, count * pace) for name, count in epochs.items()}
    return {**by_part, "judging": Cost(0.0, ledger.judging_s)}


def _pairs(search: optuna.Study, study: optuna.Study) -> Iterator[tuple[FrozenTrial, FrozenTrial]]:
    return zip(recorded_trials(study), recorded_trials(search), strict=True)


def _totals(search: optuna.Study, study: optuna.Study, space: SearchSpace) -> dict[str, Cost]:
    budget = StudyRecord(search).specification.budget
    by_trial = [costs(trial, recorded, budget, space) for trial, recorded in _pairs(search, study)]
    return {
        name: Cost(
            sum(parts[name].epochs for parts in by_trial), sum(parts[name].seconds for parts in by_trial)
        )
        for name in SHARES
    }


def _training_s(search: optuna.Study, space: SearchSpace) -> float:
    return _totals(search, search, space)["trained"].seconds


def rows(studies: dict[str, optuna.Study], space: SearchSpace) -> Iterator[list[object]]:
    """One row a variant: training, hypervolume, and the best quality at each level of size.

    By the same files, a file that is the search's, byte for byte, counts with what the search measured.
    """
    search = studies[SEARCH]
    record = StudyRecord(search)
    baseline_bytes, bounds = record.baseline_values["size_bytes"], record.bounds
    training_s = _training_s(search, space)
    reached = {}
    for name, study in studies.items():
        trials = StudyRecord(study).feasible_trials()
        reached[name] = hypervolume([trial.values for trial in trials], directions_of(study), bounds)
        again = hypervolume(_as_measured_there(search, study, trials), directions_of(study), bounds)
        totals = _totals(search, study, space)
        spent = totals["trained"].seconds + totals["judging"].seconds
        best = best_by_level([trial.values for trial in trials], baseline_bytes)
        qualities = (f"{100 * quality:.2f}" if quality is not None else "-" for quality in best)
        training = (f"{totals['trained'].epochs:.1f}", f"{spent / training_s:.3f}")
        kept = (f"{volume / reached[SEARCH]:.3f}" for volume in (reached[name], again))
        yield ["none" if study is search else name, *training, f"{reached[name]:.2f}", *kept, *qualities]


def best_by_level(files: Sequence[Sequence[float]], baseline_bytes: float) -> list[float | None]:
    """Best quality among the files of at most 1/level of the baseline's bytes, for each of ``LEVELS``.

    Args:
        files: Values of each file, in the order of the default objectives.
        baseline_bytes: Bytes of the baseline.
    """
    return [
        max((values[0] for values in files if level * values[3] <= baseline_bytes), default=None)
        for level in LEVELS
    ]


def _as_measured_there(
    search: optuna.Study, study: optuna.Study, trials: list[FrozenTrial]
) -> list[list[float]]:
    """Values of the trials; those of the search where it made the same file."""
    numbers = {trial.number for trial in trials}
    pairs = [(trial, recorded) for trial, recorded in _pairs(search, study) if trial.number in numbers]
    return [(recorded if _file(recorded) == _file(trial) else trial).values for trial, recorded in pairs]


def _file(trial: FrozenTrial) -> str | None:
    evaluation = TrialRecord(trial).evaluation
    return None if evaluation is None else str(evaluation["artifact"]["sha256"])


def shares(search: optuna.Study, study: optuna.Study, space: SearchSpace) -> Iterator[list[object]]:
    """One row for each place where the search's training time went in a variant."""
    totals, training_s = _totals(search, study, space), _training_s(search, space)
    ledgers = [TrialRecord(trial).ledger for trial, _ in _pairs(search, study)]
    counts = {
        "cache": [sum(ledger.cache_hits for ledger in ledgers), "nodes", ""],
        "preview": [sum(ledger.preview_stops for ledger in ledgers), "pipelines", ""],
        "rungs": [sum(ledger.rung_stops for ledger in ledgers), "pipelines", _stopped_on_front(study)],
    }
    for name, cost in totals.items():
        share = f"{cost.seconds / training_s:.3f}"
        yield [name, f"{cost.epochs:.1f}", share, *counts.get(name, ["", "", ""])]


def _stopped_on_front(study: optuna.Study) -> int:
    """Number of members of the front that a rung stopped."""
    return sum(TrialRecord(trial).ledger.rung_stops for trial in StudyRecord(study).front_trials())


if __name__ == "__main__":
    script.run(main)
