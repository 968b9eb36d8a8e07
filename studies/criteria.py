"""Pruning criteria and rank rules at equal parameters, without training afterwards.

    python -m studies.criteria                                             # digits, three bases
    python -m studies.criteria --data-root DATA --checkpoint FILE          # torchvision's ResNet-18

A network is pruned until a share of its parameters is left, its batch norms are measured again, and its
accuracy on the test split is what the criterion is worth. Low rank the same way, against one rank for
all layers. Three seeds: of the base on digits; of the calibration samples where there is one checkpoint.
Intervals are those of Student's t at 95 %.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import stats
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


def main() -> None:
    """Print a table of criteria and one of rank rules."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=float, nargs="*", default=[0.5, 0.25], help="shares of the parameters")
    parser.add_argument("--kept-by-rank", type=float, nargs="*", default=[0.5, 0.2])
    parser.add_argument("--sparsity-epochs", type=int, default=4)
    parser.add_argument("--criteria", nargs="*", choices=CRITERIA, default=CRITERIA)
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=TABLES)
    parser.add_argument("--test-samples", type=int, default=None)
    parser.add_argument("--cache", type=Path, default=Path("storage/cache"))
    arguments = parser.parse_args()
    tasks = list(_tasks(arguments))
    original = [accuracy(task.model, task, arguments.test_samples) for task in tasks]
    print(f"original: {interval(original)}")
    if "criteria" in arguments.tables:
        _head(arguments.kept)
        for scope in SCOPES:
            for criterion in arguments.criteria:
                _row(f"{criterion}, {scope}", tasks, arguments, _pruning(criterion, scope))
    if "sparsity" in arguments.tables:
        trained = [_sparse(task, arguments.sparsity_epochs) for task in tasks]
        after = interval([accuracy(task.model, task, arguments.test_samples) for task in trained])
        print(f"\ntrained for sparsity, not pruned: {after}")
        _head(arguments.kept)
        for criterion in SPARSE_CRITERIA:
            _row(f"{criterion}, global", trained, arguments, _pruning(criterion, "global"))
    if "ranks" in arguments.tables:
        arguments.kept = arguments.kept_by_rank
        _head(arguments.kept)
        for scope in reversed(SCOPES):
            for rule, limits in RULES.items():
                _row(f"{rule}, {scope}", tasks, arguments, _ranking(rule, scope), limits)
        _row("one rank for all layers", tasks, arguments, _uniform, (1.0, 512.0))


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


def interval(values: list[float]) -> str:
    """Mean and half width of the 95 % interval, in percent."""
    spread = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{100 * np.mean(values):.1f} ± {100 * spread:.1f}"


def compressed_to(compress: Compress, parameters: float, low: float, high: float) -> nn.Module | None:
    """What ``compress`` makes with the most parameters that are not above the wanted number, if anything.

    Args:
        compress: Maps a setting in [low, high] to a model; a higher one leaves more parameters.
        parameters: Wanted.
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


def _pruning(criterion: Criterion, scope: Scope) -> Callable[[Task, int], Compress]:
    def of(task: Task, seed: int) -> Compress:
        def prune(kept: float) -> nn.Module:
            node = Prune(removed=1 - kept, criterion=criterion, scope=scope)
            return node.apply(task.model, _context(task, seed)).model

        return prune

    return of


def _ranking(rule: RankRule, scope: Scope) -> Callable[[Task, int], Compress]:
    def of(task: Task, seed: int) -> Compress:
        def reduce(threshold: float) -> nn.Module:
            node = LowRank(scope=scope, rule=rule, **{KEPT_BY_RULE[rule]: threshold})
            return node.apply(task.model, _context(task, seed)).model

        return reduce

    return of


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


def _sparse(task: Task, epochs: int) -> Task:
    node = RegularizedTrain(epochs=epochs)
    model = node.apply(task.model, _context(task, 0, SPARSITY, epochs)).model
    return dataclasses.replace(task, model=model, fingerprint="")


def _row(
    name: str,
    tasks: list[Task],
    arguments: argparse.Namespace,
    compressing: Callable[[Task, int], Compress],
    limits: tuple[float, float] = (0.1, 0.9),
) -> None:
    cells = []
    for kept in arguments.kept:
        found, sizes = [], []
        for seed, task in enumerate(tasks):
            whole = count_parameters(task.model)
            model = compressed_to(compressing(task, seed), kept * whole, *limits)
            if model is None:
                break
            found.append(accuracy(model.eval(), task, arguments.test_samples))
            sizes.append(count_parameters(model) / whole)
        reached = len(found) == len(tasks)
        cells.append(f"{interval(found)} ({100 * np.mean(sizes):.1f} %)" if reached else "not reached")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _head(kept: list[float]) -> None:
    names = " | ".join(f"at most {100 * share:.0f} % of the parameters (really)" for share in kept)
    print(f"\n| | {names} |\n|{'---|' * (1 + len(kept))}", flush=True)


if __name__ == "__main__":
    script.run(main)
