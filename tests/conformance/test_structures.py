"""A structure is exported once: the graph of any model of it is that of an export of its own."""

from __future__ import annotations

import copy

import pytest
import torch
from conformance.models import CASES

from petra_optuna.deploy import CONV1D, Templates
from petra_optuna.deploy.float_graph import float_graph
from petra_optuna.nn.randomness import seeded

EXPORTED_ANEW = ("bert", "distilbert", "swin")
"""Models with attributes of which nobody can tell whether the graph depends on them."""

CAPTURED = (
    *("residual", "inception_time", "gru", "lstm", "shared_modules", "tied_weights", "class_token"),
    *("number_argument", "distilbert"),
)
"""One model for each way in which a graph can hang on its model; all others are as one of these."""


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> None:
    """What a first export gives is compared here."""


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.slow] * (name not in CAPTURED)) for name in CASES]
)
def test_the_file_of_a_structure_that_was_exported_before_is_that_of_a_new_export(
    model: str,
) -> None:
    """Other weights in the graph of the first export, byte by byte those of an export of their own."""
    task, templates = CASES[model](), Templates()
    other = copy.deepcopy(task.model)
    with seeded(1), torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.1 * torch.rand_like(tensor))
    first, again = (float_graph(one, task.example, CONV1D, templates) for one in (task.model, other))
    alone = float_graph(other, task.example, CONV1D, Templates())
    assert (first.reused, alone.reused) == (False, False)
    assert again.reused is (model not in EXPORTED_ANEW)
    assert again.proto.SerializeToString(deterministic=True) == alone.proto.SerializeToString(
        deterministic=True
    )
