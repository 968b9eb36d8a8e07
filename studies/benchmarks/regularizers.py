"""Print how many times as long a regularised training node takes as a plain one, for each regulariser.

    python -m studies.benchmarks.regularizers --task digits

Each turn trains copies of the task's model plainly, then with each term alone, by one recipe. Printed are the
median and the range of the turns' ratios. Factors that a term needs are made and merged within the node, and
their time counts.
"""

from __future__ import annotations

import dataclasses
import statistics

import torch

from petra_optuna.operations import Context, RegularizedTrain, Train
from petra_optuna.pipeline import Recipe
from petra_optuna.pipeline.recipe import REGULARIZERS
from petra_optuna.tasks import Task
from studies import script

PLAIN = Recipe(orthogonal=False, hoyer=False)


def main() -> None:
    """Print one row a term."""
    parser = script.task_parser(__doc__)
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training split")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--train-threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.train_threads)
    task = script.given_task(given)
    rows = []
    for name, values in ratios(task, given.fraction, given.turns).items():
        numbers = (statistics.median(values), min(values), max(values))
        rows.append([name, len(values), *(f"{number:.2f}" for number in numbers)])
    script.print_table((f"{task.name}, with", "turns", "over training, median", "lowest", "highest"), rows)


def ratios(task: Task, fraction: float, turns: int) -> dict[str, list[float]]:
    """One ratio a turn for each term, after a turn that is thrown away."""
    by_term: dict[str, list[float]] = {name: [] for name in REGULARIZERS}
    for _ in range(turns + 1):
        plain = _seconds(task, Train(epochs=1), PLAIN, fraction)
        for name, values in by_term.items():
            recipe = dataclasses.replace(PLAIN, **{name: True})  # type: ignore[arg-type]  # all are flags
            values.append(_seconds(task, RegularizedTrain(epochs=1), recipe, fraction) / plain)
    return {name: values[1:] for name, values in by_term.items()}


def _seconds(task: Task, node: Train | RegularizedTrain, recipe: Recipe, fraction: float) -> float:
    context = Context(task=task, recipe=recipe, seed=0, epochs=1, data_fraction=fraction)
    return script.seconds_of(lambda: node.apply(task.model, context))


if __name__ == "__main__":
    script.run(main)
