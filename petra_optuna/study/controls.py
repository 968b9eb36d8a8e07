"""What every study starts with. A search that does not beat these points has shown nothing."""

from __future__ import annotations

from petra_optuna.evaluation import Budget
from petra_optuna.operations import Half, Prune, QuantizeStatic, Train
from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace, declared_fields

_DISTILLED = Recipe(distillation_weight=0.9)
_PLAIN = Recipe(distillation_weight=0.0)


def controls(space: SearchSpace, budget: Budget) -> tuple[Pipeline, ...]:
    """The controls that the space can express, the original first.

    They are the original; the original trained on for the epochs that a pipeline may spend; FP16;
    static INT8 alone; and half width, distilled training and INT8.
    """
    train = Train(epochs=_most_epochs(Train, budget))
    halved = Prune(criterion="magnitude_l2", scope="local", ratio=0.5)
    candidates = (
        Pipeline(),
        Pipeline((train,), _PLAIN),
        Pipeline((Half(),)),
        Pipeline((QuantizeStatic(),)),
        Pipeline((halved, train, QuantizeStatic()), _DISTILLED),
    )
    return tuple(pipeline for pipeline in candidates if not space.violations(pipeline))


def _most_epochs(kind: type[Operation], budget: Budget) -> int:
    field = next(field for field in declared_fields(kind) if field.name == "epochs")
    return int(min(budget.epochs, field.distribution.high))  # type: ignore[attr-defined]
