"""What each regulariser costs: a regularised training node over the training node, by one recipe.

    python -m studies.benchmarks.regularizers --task digits

Each turn trains copies of the task's model plainly, then with each term alone; the median and the range of
the turns' ratios are printed. Factors that a term needs are made and merged within the node, and count.
"""

from __future__ import annotations

import dataclasses
import statistics
import time

import torch

from petra_optuna.operations import Context, RegularizedTrain, Train
from petra_optuna.pipeline import Recipe
from petra_optuna.pipeline.recipe import REGULARIZERS
from petra_optuna.tasks import Task, build_task
from studies import script

PLAIN = Recipe(orthogonal=False, hoyer=False)


def main() -> None:
    """Print one line a term."""
    parser = script.task_parser(__doc__)
    parser.add_argument("--fraction", type=float, default=1.0, help="Share of the training split.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--train-threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.train_threads)
    task = build_task(given.task, data_root=given.data_root, checkpoint=given.checkpoint)
    print(f"| {task.name}, with | turns | over training, median | lowest | highest |\n|---|---|---|---|---|")
    for name, found in ratios(task, given.fraction, given.turns).items():
        median = statistics.median(found)
        print(f"| {name} | {len(found)} | {median:.2f} | {min(found):.2f} | {max(found):.2f} |")


def ratios(task: Task, fraction: float, turns: int) -> dict[str, list[float]]:
    """By term, one ratio a turn, after a turn that is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in REGULARIZERS}
    for _ in range(turns + 1):
        plain = _seconds(task, Train(epochs=1), PLAIN, fraction)
        for name, values in found.items():
            recipe = dataclasses.replace(PLAIN, **{name: True})  # type: ignore[arg-type]  # all are flags
            values.append(_seconds(task, RegularizedTrain(epochs=1), recipe, fraction) / plain)
    return {name: values[1:] for name, values in found.items()}


def _seconds(task: Task, node: Train | RegularizedTrain, recipe: Recipe, fraction: float) -> float:
    context = Context(task=task, recipe=recipe, seed=0, epochs=1, data_fraction=fraction)
    began = time.perf_counter()
    node.apply(task.model, context)
    return time.perf_counter() - began


if __name__ == "__main__":
    script.run(main)
