from __future__ import annotations

import pytest

from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget, Limits, quality_drop
from petra_optuna.operations import LowRank, Prune, QuantizeAware, Train


def test_nodes_are_served_in_order_until_the_budget_is_spent() -> None:
    nodes = (Train(epochs=3), Prune(), Train(epochs=2), QuantizeAware(epochs=4), LowRank(), Train(epochs=1))
    assert Budget(epochs=6).allot(nodes) == (3, 0, 2, 1, 0, 0)
    assert sum(Budget(epochs=100).allot(nodes)) == 10


@pytest.mark.parametrize(("epochs", "fraction"), [(0, 1.0), (1, 0.0), (1, 1.1)])
def test_a_budget_out_of_range_is_refused(epochs: int, fraction: float) -> None:
    with pytest.raises(UserError, match="budget"):
        Budget(epochs, fraction)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["size_bytes", "latency_ms", "quality_drop"])
def test_limits_that_are_no_bounds_are_refused(name: str, bound: float) -> None:
    if (name, bound) == ("quality_drop", 0.0):
        assert Limits(quality_drop=0.0).violations({"quality_drop": 0.1}) == {"quality_drop": 0.1}
        return
    with pytest.raises(UserError, match=f"`limits.{name}` must be"):
        Limits(**{name: bound})


@pytest.mark.parametrize(("direction", "quality"), [("maximize", 0.96), ("minimize", 0.98)])
def test_a_drop_is_a_loss_in_the_metrics_own_direction(direction: str, quality: float) -> None:
    limits = Limits(quality_drop=0.01)
    exact = quality_drop(quality, 0.97, direction)
    assert limits.violations({"quality_drop": exact}) == {"quality_drop": 0.0}  # not a rounding error beyond
    worse = quality_drop(quality + (-0.01 if direction == "maximize" else 0.01), 0.97, direction)
    assert limits.violations({"quality_drop": worse})["quality_drop"] == pytest.approx(0.01)
    assert quality_drop(0.97, quality, direction) == -exact


def test_limits_report_how_far_a_value_lies_beyond_them() -> None:
    limits = Limits(size_bytes=100, latency_ms=None)
    assert limits.violations({"size_bytes": 130, "latency_ms": 9}) == {"size_bytes": 30}
    assert limits.violations({"latency_ms": 9}) == {}
    with pytest.raises(UserError, match=r"`limits\.latency_ms` must be positive"):
        Limits(latency_ms=0)
