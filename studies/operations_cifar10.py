"""Print what each operation loses and gains on real CIFAR-10, one row a pipeline.

    python -m studies.operations_cifar10 --data-root DATA --checkpoint cifar10_resnet18.safetensors

torchvision's ResNet-18 from one checkpoint. The original gets the same extra epochs as the pruned
networks. Every row is a file, measured as in a study; nothing is chosen on test.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from petra_optuna import build_task
from petra_optuna.evaluation import Budget
from petra_optuna.operations import Prune, QuantizeDynamic, QuantizeStatic, Train
from petra_optuna.pipeline import Pipeline, Recipe
from studies import script
from studies.pipelines import HEADER, measure_pipelines

RECIPE = Recipe(optimizer="sgd", lr=0.05, batch_size=128, weight_decay=5e-4, schedule="one_cycle")


def main() -> None:
    """Run every pipeline and print its row."""
    parser = script.parser(__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of pipelines; all when not given")
    parser.add_argument("--train-threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, default=script.CACHE)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.train_threads)
    task = build_task(
        "cifar10",
        data_root=arguments.data_root,
        checkpoint=arguments.checkpoint,
        cache_dir=arguments.cache,
    )
    chosen = pipelines(arguments.epochs)
    if arguments.only:
        chosen = {name: chosen[name] for name in arguments.only}
    budget = Budget(epochs=arguments.epochs)
    rows = measure_pipelines(task, chosen, budget, seed=arguments.seed, cache=arguments.cache)
    script.print_table(HEADER, (row.cells(task.metric.name) for row in rows))


def pipelines(epochs: int) -> dict[str, Pipeline]:
    """The pipelines by the names that the table shows.

    Args:
        epochs: Epochs of each training.
    """
    train = Train(epochs=epochs)
    distilled = dataclasses.replace(RECIPE, distillation_weight=0.9)
    half = Prune(criterion="magnitude_l2", scope="local", removed=0.5)
    return {
        "original": Pipeline(),
        "original, trained on": Pipeline((train,), dataclasses.replace(RECIPE, distillation_weight=0.0)),
        "static INT8": Pipeline((QuantizeStatic(),)),
        "static INT8, percentile": Pipeline((QuantizeStatic(calibration="percentile"),)),
        "static INT8, entropy": Pipeline((QuantizeStatic(calibration="entropy"),)),
        "dynamic INT8": Pipeline((QuantizeDynamic(),)),
        "half width": Pipeline((half, train), distilled),
        "half width, static INT8": Pipeline((half, train, QuantizeStatic()), distilled),
    }


if __name__ == "__main__":
    script.run(main)
