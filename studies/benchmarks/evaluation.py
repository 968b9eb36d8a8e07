"""What cache, preview and rungs save, and what they cost: one recorded search, evaluated again.

    python -m studies.benchmarks.evaluation --task cifar10 --data-root DATA --checkpoint FILE --images 10000

A search proposes the pipelines and trains every one to its end: no cache, no preview, no rungs. The same
pipelines in the same order are then evaluated with the parts of each ``VARIANTS``, in a study each. All share
the baseline and the bounds of the search, frozen before its first trial. A run that was cut off goes on.

Shares of training time are in seconds of the search: a stopped or cached pipeline's epochs that were not
trained count as long as its epochs took there, so that the machine's load at another time does not count.
The seconds that judging at rungs took come on top, as they were measured.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import torch
from optuna.artifacts import FileSystemArtifactStore
from optuna.trial import FrozenTrial

from petra_optuna.errors import TrialError
from petra_optuna.evaluation import Budget, Limits, PrefixCache, Rungs
from petra_optuna.evolution import hypervolume
from petra_optuna.measurement import DeviceProfile
from petra_optuna.operations import default_space
from petra_optuna.pipeline import Pipeline, SearchSpace, decode
from petra_optuna.samplers import (
    PetraSampler,
    directions_of,
    fail_orphans,
    finished_trials,
    plan_indices,
)
from petra_optuna.study import (
    DEFAULT_POPULATION,
    PETRA,
    Objective,
    Specification,
    StudyRecord,
    TaskSource,
    TrialRecord,
    create_study,
    open_storage,
)
from petra_optuna.study.worker_context import evaluator_of
from petra_optuna.study.worker_processes import is_orphan
from petra_optuna.tasks import Task, build_task
from studies import script

SEARCH = "search"
RUNGS = Rungs()
LEVELS = (4, 8, 16)
"""Best accuracy is taken among the files of at most 1/4, 1/8 and 1/16 of the original's bytes."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Which parts save training."""

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


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one pipeline's training took, or would have: epochs, and seconds of the search."""

    epochs: float
    seconds: float


def main() -> None:
    """Run the variants and print the tables."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(given.train_threads)
    task = build_task(
        given.task, data_root=given.data_root, checkpoint=given.checkpoint, cache_dir=given.folder / "tasks"
    )
    space, search = default_space(), _search(task, given)
    names = list(VARIANTS) if given.each else [SEARCH, ALL]
    studies = {SEARCH: search}
    for name in names:
        studies[name] = search if name == SEARCH else _replay(search, name)
        _run(studies[name], VARIANTS[name], search, task, space, given)
    specification = StudyRecord(search).specification
    print(f"\n{given.pipelines} pipelines, budget {specification.budget}, {RUNGS}, ", end="")
    print(f"limit {specification.limits.size_bytes:.0f} bytes\n")
    print("\n".join(table(studies, space)), end="\n\n")
    for name in names[1:]:
        print("\n".join(shares(search, studies[name], space)))


def _arguments() -> argparse.Namespace:
    parser = script.task_parser(__doc__)
    parser.add_argument("--pipelines", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=1, help="Most that one pipeline may train.")
    parser.add_argument("--images", type=int, help="Training images that an epoch visits; all by default.")
    parser.add_argument("--smaller", type=float, default=3.8, help="The limit: the original's bytes by this.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("storage/evaluation"))
    parser.add_argument("--each", action="store_true", help="Run the variants with some of the parts too.")
    return parser.parse_args()


def _search(task: Task, given: argparse.Namespace) -> optuna.Study:
    """The search's study, made with baseline, bounds and controls unless it is there."""
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


def _replay(search: optuna.Study, name: str) -> optuna.Study:
    """A study of that name in which the search's pipelines wait in their order."""
    study = optuna.create_study(
        storage=search._storage,
        study_name=name,
        directions=search.directions,
        sampler=optuna.samplers.RandomSampler(0),
        load_if_exists=True,
    )
    waiting = len(study.get_trials(deepcopy=False))
    for trial in finished(search)[waiting:]:
        study.enqueue_trial(trial.params)
    return study


def _run(
    study: optuna.Study,
    parts: Parts,
    search: optuna.Study,
    task: Task,
    space: SearchSpace,
    given: argparse.Namespace,
) -> None:
    """Evaluate what is left of the variant's pipelines."""
    fail_orphans(study, is_orphan)
    cache = PrefixCache(given.folder / "cache" / study.study_name.replace(", ", "-"))
    specification = StudyRecord(search).specification
    specification = dataclasses.replace(specification, rungs=RUNGS if parts.rungs else None)
    store = FileSystemArtifactStore(str(_made(given.folder / "artifacts")))
    with evaluator_of(search, task) as evaluator:
        evaluator = dataclasses.replace(
            evaluator,
            cache=cache if parts.cache else None,
            limits=specification.limits if parts.preview else Limits(),
            rungs=specification.rungs,
        )
        objective = Objective(evaluator, space, specification, store)
        left = given.pipelines - len(finished(study))
        if left > 0:
            study.optimize(objective, n_trials=left, catch=(TrialError,), callbacks=[_report])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _report(study: optuna.Study, trial: FrozenTrial) -> None:
    spent = TrialRecord(trial).ledger.train_s
    print(f"{study.study_name}: trial {trial.number} {trial.state.name}, trained {spent:.1f} s", flush=True)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials in the order of their plans; the re-run of one that was cut off stands in its place."""
    indices = plan_indices(study.get_trials(deepcopy=False))
    return sorted(finished_trials(study), key=lambda trial: indices[trial.number])


def costs(trial: FrozenTrial, recorded: FrozenTrial, budget: Budget, space: SearchSpace) -> dict[str, Cost]:
    """What became of a pipeline's allotment of training: ``trained``, or spared by a part; and ``judging``.

    Args:
        trial: Of a variant.
        recorded: The same pipeline's in the search.
        budget: Of each pipeline.
        space: Of the search.
    """
    pipeline: Pipeline = decode(trial.params, space).canonical()
    allotted, savings = budget.allot(pipeline.body), TrialRecord(trial).ledger
    total = sum(allotted)
    pace = TrialRecord(recorded).ledger.train_s / total if total else 0.0
    cached = sum(allotted[: savings.cache_hits])
    stopped = {"preview": savings.preview_stops, "rungs": savings.rung_stops}
    spared = {name: savings.saved_epochs * count for name, count in stopped.items()}
    trained = total - cached - sum(spared.values())
    epochs = {"trained": trained, "cache": cached, **spared}
    found = {name: Cost(count, count * pace) for name, count in epochs.items()}
    return {**found, "judging": Cost(0.0, savings.judging_s)}


def _pairs(search: optuna.Study, study: optuna.Study) -> Iterator[tuple[FrozenTrial, FrozenTrial]]:
    return zip(finished(study), finished(search), strict=True)


def _totals(search: optuna.Study, study: optuna.Study, space: SearchSpace) -> dict[str, Cost]:
    budget = StudyRecord(search).specification.budget
    found = [costs(trial, recorded, budget, space) for trial, recorded in _pairs(search, study)]
    return {
        name: Cost(sum(one[name].epochs for one in found), sum(one[name].seconds for one in found))
        for name in SHARES
    }


def _everything(search: optuna.Study, space: SearchSpace) -> float:
    return _totals(search, search, space)["trained"].seconds


def table(studies: dict[str, optuna.Study], space: SearchSpace) -> list[str]:
    """One line a variant: training, hypervolume, and the best quality at each level of size.

    ``same files``: where a file is the search's, byte for byte, it counts with what the search measured.
    """
    search = studies[SEARCH]
    record = StudyRecord(search)
    original, bounds = record.baseline_values["size_bytes"], record.bounds
    heads = [f"best at 1/{level} of the size" for level in LEVELS]
    columns = [
        "parts",
        "epochs",
        "share of training time",
        "hypervolume",
        "share",
        "same files, share",
        *heads,
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    everything = _everything(search, space)
    reached = {}
    for name, study in studies.items():
        trials = StudyRecord(study).feasible_trials()
        reached[name] = hypervolume([trial.values for trial in trials], directions_of(study), bounds)
        again = hypervolume(_as_measured_there(search, study, trials), directions_of(study), bounds)
        totals = _totals(search, study, space)
        spent = totals["trained"].seconds + totals["judging"].seconds
        best = best_by_level([trial.values for trial in trials], original)
        shown = [f"{100 * one:.2f}" if one is not None else "-" for one in best]
        training = f"{totals['trained'].epochs:.1f} | {spent / everything:.3f}"
        kept = f"{reached[name] / reached[SEARCH]:.3f} | {again / reached[SEARCH]:.3f}"
        volume = f"{reached[name]:.2f} | {kept}"
        parts = "none" if study is search else name
        lines.append(f"| {parts} | {training} | {volume} | {' | '.join(shown)} |")
    return lines


def best_by_level(files: Sequence[Sequence[float]], original: float) -> list[float | None]:
    """Best quality among the files of at most the original's bytes by each of ``LEVELS``.

    Args:
        files: Values of each, in the order of the default objectives.
        original: Bytes of the original.
    """
    return [
        max((values[0] for values in files if level * values[3] <= original), default=None)
        for level in LEVELS
    ]


def _as_measured_there(
    search: optuna.Study, study: optuna.Study, trials: list[FrozenTrial]
) -> list[list[float]]:
    """Values of the trials, those of the search where it made the same file."""
    numbers = {trial.number for trial in trials}
    pairs = [(trial, there) for trial, there in _pairs(search, study) if trial.number in numbers]
    return [(there if _file(there) == _file(trial) else trial).values for trial, there in pairs]


def _file(trial: FrozenTrial) -> str | None:
    evaluation = TrialRecord(trial).evaluation
    return None if evaluation is None else str(evaluation["artifact"]["sha256"])


def shares(search: optuna.Study, study: optuna.Study, space: SearchSpace) -> list[str]:
    """Where the search's training time went in a variant."""
    totals, everything = _totals(search, study, space), _everything(search, space)
    stops = [TrialRecord(trial).ledger for trial, _ in _pairs(search, study)]
    counts = {
        "trained": "",
        "judging": "",
        "cache": f"{sum(one.cache_hits for one in stops)} nodes",
        "preview": f"{sum(one.preview_stops for one in stops)} pipelines",
        "rungs": f"{sum(one.rung_stops for one in stops)} pipelines, {_early(study)} of them on the front",
    }
    lines = [f"| {study.study_name} | epochs | share of training time | |", "|---|---|---|---|"]
    return lines + [
        f"| {name} | {cost.epochs:.1f} | {cost.seconds / everything:.3f} | {counts[name]} |"
        for name, cost in totals.items()
    ]


def _early(study: optuna.Study) -> int:
    """Members of the front that a rung stopped."""
    return sum(TrialRecord(trial).ledger.rung_stops for trial in StudyRecord(study).front_trials())


if __name__ == "__main__":
    script.run(main)
