"""What a search over a task of values does differently: it stays nearer to the original.

A classifier keeps its answer under most small errors, and a value takes all of them along. In the paper's
table of energy use a file that is 85 % smaller has 134 % more error (PETRA, arXiv 2510.09566).
"""

from __future__ import annotations

from collections.abc import Sequence

from petra_optuna.operations import DropBlocks, LowRank, Prune, QuantizeStatic
from petra_optuna.pipeline import FieldPrior, Operation, SearchSpace
from petra_optuna.pipeline.fields import Value
from petra_optuna.tasks import Metric

DEFAULT_REGION = 0.1
"""Quality may be 10 % worse than the baseline's: what is worse than that, hardly anybody deploys."""
VALUE_REGION = 0.05
"""The same for a task of values."""

_GENTLE: Sequence[tuple[type[Operation], str, float, dict[str, Value]]] = (
    (Prune, "removed", 0.3, {}),
    (DropBlocks, "removed", 0.2, {}),
    (LowRank, "kept_energy", 0.97, {"rule": "energy"}),
    (LowRank, "kept_singular_values", 0.8, {"rule": "singular_values"}),
    (LowRank, "kept_weights", 0.7, {"rule": "share"}),
    (QuantizeStatic, "keep_float", 1, {}),
)


def default_region(metric: Metric) -> float:
    """Most that quality may be worse than the baseline's, as a share of it, where a study does not say."""
    return VALUE_REGION if metric.regression else DEFAULT_REGION


def gentle_priors(space: SearchSpace, others: Sequence[FieldPrior] = ()) -> tuple[FieldPrior, ...]:
    """Priors of new nodes for a task of values: weaker cuts, and the worst layer of INT8 in float.

    Args:
        space: Search space, whose operations count.
        others: Priors that are known already; their fields get no second one.
    """
    told = {(prior.operation, prior.field) for prior in others}
    gentle = [
        FieldPrior.within(operation, field, value, when)
        for operation, field, value, when in _GENTLE
        if operation in space.operations and (operation.name, field) not in told
    ]
    return (*others, *gentle)
