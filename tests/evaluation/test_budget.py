from __future__ import annotations

import pytest

from petra_optuna.errors import UserError
from petra_optuna.evaluation import Budget, Limits
from petra_optuna.operations import LowRank, Prune, QuantizeAware, Train


def test_nodes_are_served_in_order_until_the_budget_is_spent() -> None:
    nodes = (Train(epochs=3), Prune(), Train(epochs=2), QuantizeAware(epochs=4), LowRank(), Train(epochs=1))
    assert Budget(epochs=6).allot(nodes) == (3, 0, 2, 1, 0, 0)
    assert sum(Budget(epochs=100).allot(nodes)) == 10


@pytest.mark.parametrize(("epochs", "fraction"), [(0, 1.0), (1, 0.0), (1, 1.1)])
def test_a_budget_out_of_range_is_refused(epochs: int, fraction: float) -> None:
    with pytest.raises(UserError, match="budget"):
        Budget(epochs, fraction)


def test_limits_report_how_far_a_value_lies_beyond_them() -> None:
    limits = Limits(size_bytes=100, latency_ms=None)
    assert limits.excess({"size_bytes": 130, "latency_ms": 9}) == {"size_bytes": 30}
    assert limits.excess({"latency_ms": 9}) == {}
    with pytest.raises(UserError, match="latency_ms must be positive"):
        Limits(latency_ms=0)
