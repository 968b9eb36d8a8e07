from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from support.toy_space import Cut, Fold

from petra_optuna.errors import PipelineError
from petra_optuna.pipeline import Recipe, When, declared_fields
from petra_optuna.pipeline.fields import Fielded


def test_a_condition_holds_only_where_its_own_condition_holds() -> None:
    assert set(Fold().active_values()) == {"rule", "energy", "slack"}
    assert set(Fold(energy="tight").active_values()) == {"rule", "energy"}
    # ``energy`` is "loose" here as well, but does not count, so neither does what hangs on it.
    assert set(Fold(rule="rank").active_values()) == {"rule", "rank"}


def test_canonical_keeps_what_counts_and_resets_the_rest() -> None:
    record = Fold(rule="rank", rank=7, energy="tight", slack=0.5)
    assert record.canonical() == Fold(rule="rank", rank=7)
    assert record.canonical().canonical() == record.canonical()


def test_a_whole_number_in_a_continuous_field_is_the_equal_float() -> None:
    assert repr(Recipe(temperature=4).active_values()) == repr(Recipe(temperature=4.0).active_values())


@pytest.mark.parametrize(
    "fields",
    [
        {"ratio": 0.95},
        {"ratio": "0.5"},
        {"ratio": True},
        {"ratio": float("nan")},
        {"grain": 2.0},
        {"grain": 65},
        {"width": 5},
        {"share": 0.3},
    ],
)
def test_a_value_outside_its_distribution_is_refused_by_name(fields: dict[str, object]) -> None:
    (name,) = fields
    with pytest.raises(PipelineError, match=rf"Cut\.{name} must be in .* got"):
        Cut(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields", [{"ratio": 0.1}, {"ratio": 0.9}, {"width": 15}, {"share": 0.75}, {"grain": 64}]
)
def test_the_ends_and_steps_of_a_distribution_belong_to_it(fields: dict[str, float]) -> None:
    assert Cut(**fields).values().items() >= fields.items()  # type: ignore[arg-type]


def test_a_true_is_not_a_one() -> None:
    with pytest.raises(PipelineError, match="batch_size"):
        Recipe(batch_size=True)


@dataclass(frozen=True)
class NoDistribution(Fielded):
    ratio: float = 0.5


@dataclass(frozen=True)
class NoDefault(Fielded):
    ratio: Annotated[float, FloatDistribution(0, 1)]


@dataclass(frozen=True)
class Backwards(Fielded):
    late: Annotated[int, IntDistribution(0, 1), When("early", (1,))] = 0
    early: Annotated[int, IntDistribution(0, 1)] = 0


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (NoDistribution, "exactly one Optuna distribution"),
        (NoDefault, "have a default"),
        (Backwards, "'early', which is not declared before"),
    ],
)
def test_a_bad_declaration_is_refused(cls: type[Fielded], reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        declared_fields(cls)
