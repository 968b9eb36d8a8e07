from __future__ import annotations

from typing import Any, get_args

import pytest

from petra_optuna.nn.low_rank import ranks
from petra_optuna.nn.pruning import importance, prune
from petra_optuna.operations import EVERY_OPERATION
from petra_optuna.pipebench.operations import BODY, CONVERSIONS
from petra_optuna.pipeline import Operation, declared_fields, nodes
from petra_optuna.pipeline.notation import imported_operations

FAMILIES = {"real": EVERY_OPERATION, "surrogate": (*BODY, *CONVERSIONS)}


@pytest.mark.parametrize(
    ("choices", "known"),
    [
        (nodes.Criterion, importance.Criterion),
        (nodes.Scope, prune.Scope),
        (nodes.RankRule, ranks.RankRule),
    ],
)
def test_a_field_offers_what_the_mathematics_knows(choices: Any, known: Any) -> None:
    assert get_args(choices) == get_args(known)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_operation_adds_no_field_to_its_declaration(family: str) -> None:
    for kind in FAMILIES[family]:
        declaration: type[Operation] = kind.__bases__[0]  # type: ignore[assignment]
        assert declaration.__module__ == nodes.__name__
        assert declared_fields(kind) == declared_fields(declaration)
        assert (kind.name, kind.kind) == (declaration.name, declaration.kind)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_for_rounding_implies_the_static_conversion_of_its_family(family: str) -> None:
    by_name = {kind.name: kind for kind in FAMILIES[family]}
    assert {kind.name: kind.implies for kind in FAMILIES[family] if kind.implies} == {
        "qat": by_name["static"]
    }


def test_a_declaration_has_no_code_of_its_own_in_the_notation() -> None:
    assert all(kind.__module__ != nodes.__name__ for kind in imported_operations())
