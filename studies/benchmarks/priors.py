"""Print the hypervolume of short searches whose new nodes begin uniformly, or where sensitivity curves say.

    python -m studies.benchmarks.priors --trials 30 --seeds 1000 1001 1002

On ``digits``, with structural nodes and training (one epoch a pipeline, a quarter of the data). Pipelines
are applied and scored in PyTorch; nothing is exported or timed, so that many searches fit. Objectives:
accuracy on selection, parameters, multiply-accumulates. The hypervolume (1 is the original) is that after a
third, two thirds and all of the trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import torch
from optuna.study import StudyDirection
from torch import nn

from petra_optuna.errors import TrialError
from petra_optuna.evaluation import Budget, PrefixCache, priors_from_sensitivity, sensitivity_of
from petra_optuna.evolution import Bounds, hypervolume
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.operations import Context, DropBlocks, LowRank, Prune, Train
from petra_optuna.pipeline import Pipeline, SearchSpace, suggest
from petra_optuna.samplers import BOUNDS, PRIORS, PetraSampler, directions_of
from petra_optuna.tasks import Task, build_task
from studies import script

SPACE = SearchSpace((LowRank, Prune, DropBlocks, Train), max_length=3)
BUDGET = Budget(epochs=1, data_fraction=0.25)
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)


def main() -> None:
    """Run the searches and print a row for each."""
    parser = script.parser(__doc__)
    parser.add_argument("--trials", type=int, default=30, help="trials of each search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002])
    parser.add_argument("--cache", type=Path, default=script.CACHE)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    task = build_task("digits", cache_dir=arguments.cache)
    priors = priors_from_sensitivity(sensitivity_of(task, PrefixCache(arguments.cache)), SPACE)
    for prior in priors:
        print(f"{prior.operation}.{prior.field} {dict(prior.when)}: {prior.value:.3g}")
    thirds = [arguments.trials * part // 3 for part in (1, 2, 3)]
    header = ("seed", "new nodes", *(f"after {count} trials" for count in thirds), "failed trials")
    rows = _rows(task, arguments.seeds, thirds, [prior.to_dict() for prior in priors])
    script.print_table(header, rows)


def _rows(
    task: Task, seeds: list[int], thirds: list[int], priors: list[dict[str, object]]
) -> Iterator[list[object]]:
    for seed in seeds:
        for name, chosen in (("uniform", []), ("curves", priors)):
            study = search(task, seed, thirds[-1], chosen)
            volumes = (f"{volume(study, count):.4g}" for count in thirds)
            yield [seed, name, *volumes, sum(trial.values is None for trial in study.trials)]


def search(task: Task, seed: int, trials: int, priors: list[dict[str, object]]) -> optuna.Study:
    """One search; the original's trial comes first."""
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(SPACE, seed=seed))
    study.set_user_attr(BOUNDS, Bounds(values_of(task, task.model), (False, True, True)).to_dict())
    study.set_user_attr(PRIORS, priors)
    study.enqueue_trial({"length": 0, "convert.op": "none"})
    study.optimize(
        lambda trial: values_of(task, apply(task, suggest(trial, SPACE), seed)),
        n_trials=trials,
        catch=(TrialError,),
    )
    return study


def apply(task: Task, pipeline: Pipeline, seed: int, budget: Budget = BUDGET) -> nn.Module:
    """The model that a pipeline leads to."""
    model: nn.Module = task.model
    for node, epochs in zip(pipeline.body, budget.allot(pipeline.body), strict=True):
        model = node.apply(model, Context(task, pipeline.recipe, seed, epochs, budget.data_fraction)).model
    return model


def values_of(task: Task, model: nn.Module) -> tuple[float, float, float]:
    """Accuracy on selection, parameters, multiply-accumulates."""
    model.eval()
    with torch.inference_mode():
        quality = task.evaluate(lambda inputs: forward(model, inputs).numpy(), task.selection)
    return quality, float(count_parameters(model)), float(count_macs(model, task.example))


def volume(study: optuna.Study, trials: int) -> float:
    """Hypervolume of the first trials, in units of the original's."""
    bounds = Bounds.from_dict(study.user_attrs[BOUNDS])
    values = [trial.values for trial in study.trials[:trials] if trial.values is not None]
    return hypervolume(values, directions_of(study), bounds)


if __name__ == "__main__":
    script.run(main)
