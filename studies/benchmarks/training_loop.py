"""Print how many times as long the training node takes as a bare PyTorch loop of the same model.

    python -m studies.benchmarks.training_loop --task digits

Both train copies of the task's model on the same batches in memory, with the same optimiser, schedule,
gradient clipping and precision, in turns. Printed are the median and the range of the pairs' ratios.
"""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from petra_optuna.nn.inputs import forward
from petra_optuna.nn.training import schedule_factor, training_dtype
from petra_optuna.operations import Context, Train
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task
from studies import script


def main() -> None:
    """Print the ratio and its range."""
    parser = script.task_parser(__doc__)
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training split")
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    task = script.given_task(given)
    ratios = overhead(task, given.fraction, given.pairs)
    numbers = (statistics.median(ratios), min(ratios), max(ratios))
    row = [task.name, len(ratios), *(f"{number:.3f}" for number in numbers)]
    script.print_table(("task", "pairs", "node / bare loop, median", "lowest", "highest"), [row])


def overhead(task: Task, fraction: float, pairs: int) -> list[float]:
    """Seconds of the node over those of the bare loop, one ratio a pair, after a pair that is thrown away."""
    recipe = Recipe(distillation_weight=0.0, batch_size=64, optimizer="sgd")
    context = Context(task=task, recipe=recipe, seed=0, epochs=1, data_fraction=fraction)
    batches = list(task.train.batches(recipe.batch_size, shuffle_seed=0, fraction=fraction, augment=True))
    ratios = []
    for turn in range(pairs + 1):
        seconds = {}
        for node in (True, False) if turn % 2 else (False, True):
            model = copy.deepcopy(task.model)
            work: Callable[[], object] = functools.partial(_bare, model, batches, recipe)
            if node:
                work = functools.partial(Train(epochs=1).apply, model, context)
            seconds[node] = script.seconds_of(work)
        ratios.append(seconds[True] / seconds[False])
    return ratios[1:]


def _bare(model: nn.Module, batches: list, recipe: Recipe) -> None:  # type: ignore[type-arg]
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule_factor(recipe.schedule, step / len(batches))
    )
    dtype = training_dtype(torch.device("cpu"))
    model.train()
    for inputs, targets in batches:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            outputs = forward(model, inputs)
        loss = functional.cross_entropy(outputs.float(), targets, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        scheduler.step()


if __name__ == "__main__":
    script.run(main)
