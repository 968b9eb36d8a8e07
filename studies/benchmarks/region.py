"""Print what the region of interest does to a search: hypervolume inside it, with and without.

    python -m studies.benchmarks.region --trials 40 --seeds 0 1 2
    python -m studies.benchmarks.region --task cifar10 --data-root DATA --checkpoint FILE --data-fraction 0.05

Structural nodes and training; pipelines are applied and scored in PyTorch, nothing is exported or timed, so
that many searches fit. Objectives: quality on selection, parameters, multiply-accumulates. Both searches of
a seed are judged by the hypervolume within a region of 10 % (1 is the original), and by how many of their
trials lie in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import optuna
import torch
from torch.utils.data import Subset

from petra_optuna.errors import TrialError
from petra_optuna.evaluation import Budget
from petra_optuna.evolution import Bounds, hypervolume
from petra_optuna.pipeline import suggest
from petra_optuna.samplers import BOUNDS, PetraSampler, directions_of
from petra_optuna.study import DEFAULT_REGION
from petra_optuna.study.specification import NO_REGION
from petra_optuna.tasks import Task
from studies import script
from studies.benchmarks.priors import DIRECTIONS, SPACE, apply, values_of

HEADER = ("seed", "region", "after half the trials", "after all", "trials inside, %", "failed trials")


def main() -> None:
    """Run the searches and print a row for each."""
    parser = script.task_parser(__doc__)
    parser.add_argument("--trials", type=int, default=40, help="trials of each search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data-fraction", type=float, default=0.25, help="share of the data in an epoch")
    parser.add_argument("--selection", type=int, help="samples that quality is computed on; all by default")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(given.threads)
    task = _with_selection(script.given_task(given), given.selection)
    budget = Budget(epochs=1, data_fraction=given.data_fraction)
    script.print_table(HEADER, _rows(task, given.seeds, given.trials, budget))


def _rows(task: Task, seeds: list[int], trials: int, budget: Budget) -> Iterator[list[object]]:
    original = values_of(task, task.model)
    for seed in seeds:
        for region in (NO_REGION, DEFAULT_REGION):
            study = _search(task, seed, trials, Bounds(original, (False, True, True), region), budget)
            judged = Bounds(original, (False, True, True), DEFAULT_REGION)
            volumes = [f"{_volume(study, judged, count):.4g}" for count in (trials // 2, trials)]
            inside = [_is_inside(trial.values, judged) for trial in study.trials if trial.values]
            name = "off" if region == NO_REGION else f"{region:g}"
            yield [seed, name, *volumes, f"{100 * np.mean(inside):.0f}", trials - len(inside)]


def _search(task: Task, seed: int, trials: int, bounds: Bounds, budget: Budget) -> optuna.Study:
    """One search; the original's trial comes first."""
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(SPACE, seed=seed))
    study.set_user_attr(BOUNDS, bounds.to_dict())
    study.enqueue_trial({"length": 0, "convert.op": "none"})
    study.optimize(
        lambda trial: values_of(task, apply(task, suggest(trial, SPACE), seed, budget)),
        n_trials=trials,
        catch=(TrialError,),
    )
    return study


def _volume(study: optuna.Study, bounds: Bounds, trials: int) -> float:
    values = [trial.values for trial in study.trials[:trials] if trial.values]
    return hypervolume(values, directions_of(study), bounds)


def _is_inside(values: list[float], bounds: Bounds) -> bool:
    """Whether the quality is in the region."""
    return values[0] >= (1 - bounds.slack) * bounds.reference[0]


def _with_selection(task: Task, count: int | None) -> Task:
    """The task with the first samples of its selection split only."""
    if count is None:
        return task
    subset = Subset(task.selection.dataset, range(count))
    return dataclasses.replace(task, selection=dataclasses.replace(task.selection, dataset=subset))


if __name__ == "__main__":
    script.run(main)
