"""Whether new nodes should begin where sensitivity curves say: the same short searches with and without.

    python -m studies.benchmarks.starts --trials 30 --seeds 1000 1001 1002

On ``digits``, with structural nodes and training (one epoch a pipeline, a quarter of the data). Pipelines
are applied and scored in PyTorch; nothing is exported or timed, so that many searches fit. Objectives:
accuracy on selection, parameters, multiply-accumulates. Prints the hypervolume (1 is the original) after a
third, two thirds and all of the trials.
"""

from __future__ import annotations

import argparse
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
    """Run the searches and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002])
    parser.add_argument("--cache", type=Path, default=Path("storage/cache"))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    task = build_task("digits", cache_dir=arguments.cache)
    starts = priors_from_sensitivity(sensitivity_of(task, PrefixCache(arguments.cache)), SPACE)
    for start in starts:
        print(f"{start.operation}.{start.field} {dict(start.when)}: {start.value:.3g}")
    for seed in arguments.seeds:
        for name, given in (("uniform", []), ("curves", [start.to_dict() for start in starts])):
            study = search(task, seed, arguments.trials, given)
            thirds = [volume(study, arguments.trials * part // 3) for part in (1, 2, 3)]
            failed = sum(trial.values is None for trial in study.trials)
            text = ", ".join(f"{found:.4g}" for found in thirds)
            print(f"seed {seed} {name}: {text}; failed {failed}", flush=True)


def search(task: Task, seed: int, trials: int, starts: list[dict[str, object]]) -> optuna.Study:
    """One search; the original's trial comes first."""
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(SPACE, seed=seed))
    study.set_user_attr(BOUNDS, Bounds(values_of(task, task.model), (False, True, True)).to_dict())
    study.set_user_attr(PRIORS, starts)
    study.enqueue_trial({"length": 0, "convert.op": "none"})
    study.optimize(
        lambda trial: values_of(task, applied(task, suggest(trial, SPACE), seed)),
        n_trials=trials,
        catch=(TrialError,),
    )
    return study


def applied(task: Task, pipeline: Pipeline, seed: int) -> nn.Module:
    """The model that a pipeline leads to."""
    model: nn.Module = task.model
    for node, epochs in zip(pipeline.body, BUDGET.allot(pipeline.body), strict=True):
        model = node.apply(model, Context(task, pipeline.recipe, seed, epochs, BUDGET.data_fraction)).model
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
