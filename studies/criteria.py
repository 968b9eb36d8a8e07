"""Print the accuracy that pruning criteria and rank rules keep at equal parameters, without later training.

    python -m studies.criteria                                             # digits, three bases
    python -m studies.criteria --data-root DATA --checkpoint FILE          # torchvision's ResNet-18

A network is pruned until a share of its parameters is left, its batch norms are measured again, and its
accuracy on the test split is what the criterion is worth. Low rank is judged the same way, against one rank
for all layers. The seeds are those of the base on digits, and of the calibration samples where there is one
checkpoint. Accuracies and the parameters really kept are in percent; intervals are those of Student's t at
95 %.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from petra_optuna import build_task
from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.low_rank import break_even_rank, decompose, is_decomposable, weight_matrix
from petra_optuna.nn.pruning import CRITERIA
from petra_optuna.nn.surgery import replace_module
from petra_optuna.operations import Context, LowRank, Prune, RegularizedTrain
from petra_optuna.pipeline import Recipe
from petra_optuna.pipeline.nodes import KEPT_BY_RULE, Criterion, RankRule, Scope
from petra_optuna.tasks import Task, open_once
from studies import script

SPARSITY = Recipe(
    orthogonal=False, hoyer=False, sparsity=True, lambda_sparsity=0.1, distillation_weight=0.0, lr=1e-3
)
CALIBRATION_SAMPLES = 256
BISECTIONS = 7
SCOPES: tuple[Scope, ...] = ("local", "global")
SPARSE_CRITERIA: tuple[Criterion, ...] = ("batch_norm", "magnitude_l2", "random")
RULES: dict[RankRule, tuple[float, float]] = {
    "energy": (0.5, 0.999),
    "singular_values": (0.2, 0.999),
    "share": (0.1, 0.9),
}

TABLES = ("criteria", "sparsity", "ranks")

Compress = Callable[[float], nn.Module]


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: Criterion or rule.
        scope: ``local`` or ``global``; empty where it does not apply.
        compressing: What compresses the model of a task, with a seed, by one setting.
        limits: Lowest and highest setting; a higher one leaves more parameters.
    """

    name: str
    scope: str
    compressing: Callable[[Task, int], Compress]
    limits: tuple[float, float] = (0.1, 0.9)


def main() -> None:
    """Print a table of criteria and one of rank rules."""
    parser = script.parser(__doc__)
    parser.add_argument("--data-root", type=Path, help="folder of CIFAR-10; digits when not given")
    parser.add_argument("--checkpoint", type=Path, help="weights of the ResNet-18 for CIFAR-10")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--kept", type=float, nargs="*", default=[0.5, 0.25], help="shares of the parameters")
    parser.add_argument(
        "--kept-by-rank", type=float, nargs="*", default=[0.5, 0.2], help="as --kept, for rank rules"
    )
    parser.add_argument("--sparsity-epochs", type=int, default=4)
    parser.add_argument("--criteria", nargs="*", choices=CRITERIA, default=CRITERIA)
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=TABLES)
    parser.add_argument("--test-samples", type=int, default=None, help="test samples that count")
    parser.add_argument("--cache", type=Path, default=script.CACHE)
    arguments = parser.parse_args()
    tasks = list(_tasks(arguments))
    original = [accuracy(task.model, task, arguments.test_samples) for task in tasks]
    print(f"original: {' ± '.join(script.interval(original))}")
    if "criteria" in arguments.tables:
        pairs = itertools.product(SCOPES, arguments.criteria)
        _print(tasks, arguments, arguments.kept, [_pruning(criterion, scope) for scope, criterion in pairs])
    if "sparsity" in arguments.tables:
        trained = [_train_sparse(task, arguments.sparsity_epochs) for task in tasks]
        after = script.interval([accuracy(task.model, task, arguments.test_samples) for task in trained])
        print(f"\ntrained for sparsity, not pruned: {' ± '.join(after)}")
        _print(trained, arguments, arguments.kept, [_pruning(name, "global") for name in SPARSE_CRITERIA])
    if "ranks" in arguments.tables:
        rules = [_ranking(rule, scope) for scope, rule in itertools.product(reversed(SCOPES), RULES)]
        _print(tasks, arguments, arguments.kept_by_rank, [*rules, ONE_RANK])


def accuracy(model: nn.Module, task: Task, limit: int | None) -> float:
    """Accuracy on the first ``limit`` test samples, spread over the split."""
    assert task.test is not None
    right = count = 0
    fraction = min(1.0, limit / len(task.test)) if limit else 1.0
    with torch.inference_mode():
        for inputs, targets in open_once(task.test).batches(256, fraction=fraction):
            right += int((forward(model, inputs).argmax(1) == targets).sum())
            count += len(targets)
    return right / count


def compress_to(compress: Compress, parameters: float, low: float, high: float) -> nn.Module | None:
    """The largest model that ``compress`` makes with at most that many parameters; None if it makes none.

    Args:
        compress: Maps a setting in [low, high] to a model; a higher one leaves more parameters.
        parameters: Most parameters of the model.
        low, high: Bounds of the setting.
    """
    best: nn.Module | None = None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        model = compress(middle)
        fits = count_parameters(model) <= parameters
        if fits and (best is None or count_parameters(model) > count_parameters(best)):
            best = model
        low, high = (middle, high) if fits else (low, middle)
    return best


def _tasks(arguments: argparse.Namespace) -> Iterator[Task]:
    for seed in range(arguments.seeds):
        if arguments.data_root is None:
            yield build_task("digits", cache_dir=arguments.cache, seed=seed)
            continue
        task = build_task(
            "cifar10",
            data_root=arguments.data_root,
            checkpoint=arguments.checkpoint,
            cache_dir=arguments.cache,
        )
        count = len(task.calibration)
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:CALIBRATION_SAMPLES]
        part = Subset(task.calibration.dataset, chosen.tolist())
        yield dataclasses.replace(task, calibration=dataclasses.replace(task.calibration, dataset=part))


def _context(task: Task, seed: int, recipe: Recipe | None = None, epochs: int = 0) -> Context:
    return Context(task=task, recipe=recipe or Recipe(), seed=seed, epochs=epochs)


def _pruning(criterion: Criterion, scope: Scope) -> Method:
    def compressing(task: Task, seed: int) -> Compress:
        def prune(kept: float) -> nn.Module:
            node = Prune(removed=1 - kept, criterion=criterion, scope=scope)
            return node.apply(task.model, _context(task, seed)).model

        return prune

    return Method(criterion, scope, compressing)


def _ranking(rule: RankRule, scope: Scope) -> Method:
    def compressing(task: Task, seed: int) -> Compress:
        def reduce(threshold: float) -> nn.Module:
            node = LowRank(scope=scope, rule=rule, **{KEPT_BY_RULE[rule]: threshold})
            return node.apply(task.model, _context(task, seed)).model

        return reduce

    return Method(rule, scope, compressing, RULES[rule])


def _uniform(task: Task, seed: int) -> Compress:
    """One rank for all layers, where it saves weights, and batch norms measured again as after the rules."""

    def reduce(rank: float) -> nn.Module:
        model = copy.deepcopy(task.model)
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d) and is_decomposable(layer):
                chosen = max(1, int(rank))
                if chosen < break_even_rank(*weight_matrix(layer).shape):
                    model = replace_module(model, name, decompose(layer, chosen))
        batches = (inputs for inputs, _ in _context(task, seed).calibration_batches())
        reestimate_batch_norm(model.eval(), batches)
        return model

    return reduce


ONE_RANK = Method("one rank for all layers", "", _uniform, (1.0, 512.0))


def _train_sparse(task: Task, epochs: int) -> Task:
    node = RegularizedTrain(epochs=epochs)
    model = node.apply(task.model, _context(task, 0, SPARSITY, epochs)).model
    return dataclasses.replace(task, model=model, fingerprint="")


def _print(
    tasks: list[Task], arguments: argparse.Namespace, kept: list[float], methods: list[Method]
) -> None:
    heads = (
        head
        for share in kept
        for head in (f"at most {100 * share:.0f} %: accuracy, %", "±", "really kept, %")
    )
    rows = (_row(method, tasks, arguments.test_samples, kept) for method in methods)
    print()
    script.print_table(("", "scope", *heads), rows)


def _row(method: Method, tasks: list[Task], test_samples: int | None, kept: list[float]) -> list[str]:
    cells = [method.name, method.scope]
    for share in kept:
        accuracies, sizes = [], []
        for seed, task in enumerate(tasks):
            whole = count_parameters(task.model)
            model = compress_to(method.compressing(task, seed), share * whole, *method.limits)
            if model is None:
                break
            accuracies.append(accuracy(model.eval(), task, test_samples))
            sizes.append(count_parameters(model) / whole)
        reached = len(accuracies) == len(tasks)
        shown = (
            (*script.interval(accuracies), f"{100 * np.mean(sizes):.1f}")
            if reached
            else ("not reached", "", "")
        )
        cells += shown
    return cells


if __name__ == "__main__":
    script.run(main)
