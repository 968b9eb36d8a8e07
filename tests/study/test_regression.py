from __future__ import annotations

import pytest

from petra_optuna.operations import Prune, Train, default_space
from petra_optuna.pipeline import FieldPrior, SearchSpace, declared_fields
from petra_optuna.study.regression import default_region, gentle_priors
from petra_optuna.tasks import Metric
from petra_optuna.tasks.metrics import METRICS


@pytest.mark.parametrize("known", METRICS, ids=lambda known: known.name)
def test_the_region_of_values_is_half_as_wide(known: Metric) -> None:
    expected = 0.05 if known.name in ("rmse", "mae", "r2") else 0.1
    assert default_region(known) == expected


def test_gentle_priors_are_weaker_than_the_defaults_and_within_their_fields() -> None:
    space = default_space()
    for prior in gentle_priors(space):
        operation = space.operation(prior.operation)
        field = next(field for field in declared_fields(operation) if field.name == prior.field)
        assert field.distribution._contains(prior.value)
        gentler = field.default > prior.value if prior.field == "removed" else field.default < prior.value
        assert gentler, prior


def test_only_operations_of_the_space_get_one_and_measured_priors_go_first() -> None:
    space = SearchSpace((Prune, Train))
    assert [prior.field for prior in gentle_priors(space)] == ["removed"]
    measured = FieldPrior.within(Prune, "removed", 0.55, {"scope": "local"})
    assert gentle_priors(space, [measured]) == (measured,)
