from __future__ import annotations

import itertools

import pytest

from petra_optuna.errors import OperationFailed
from petra_optuna.nn.time_limit import check_time, time_limit
from petra_optuna.operations import Context, DropBlocks, LowRank, Prune
from petra_optuna.pipeline import Operation, Recipe
from petra_optuna.tasks import Task


def test_checks_pass_until_the_time_is_up_and_outside_of_the_block() -> None:
    seconds = itertools.count()
    with time_limit(2.5, lambda: float(next(seconds))):
        check_time()
        check_time()
        with pytest.raises(OperationFailed, match=r"not done after 2\.5 s"):
            check_time()
        with time_limit(100, lambda: 0.0):
            check_time()
    check_time()


@pytest.mark.parametrize("node", [Prune(), LowRank(), DropBlocks()], ids=lambda node: node.name)
def test_every_structural_node_ends_with_its_time(tiny_task: Task, node: Operation) -> None:
    context = Context(tiny_task, Recipe(), seed=0, epochs=0, search_s=0.0)
    with pytest.raises(OperationFailed, match="not done after 0 s"):
        node.apply(tiny_task.model, context)
