"""The pipelines that every study starts with. A search that does not beat them has shown nothing."""

from __future__ import annotations

from petra_optuna.evaluation import Budget
from petra_optuna.operations import Half, Prune, QuantizeStatic, Train
from petra_optuna.pipeline import Operation, Pipeline, Recipe, SearchSpace, declared_fields

_DISTILLED = Recipe(distillation_weight=0.9)
_PLAIN = Recipe(distillation_weight=0.0)
_HALVED = Prune(criterion="magnitude_l2", scope="local", removed=0.5)


def controls(space: SearchSpace, budget: Budget) -> tuple[Pipeline, ...]:
    """The controls that the space can express.

    Where pipelines start from the model, the controls are: the original; the original trained on for the
    epochs that a pipeline may spend; FP16; static INT8 alone; half width, distilled training and INT8.

    Where pipelines start from initialisation, they are: the architecture trained for all epochs; the same in
    FP16; the same in static INT8; the same distilled from the original, since a search may do that too;
    distilled training with half width after half of the epochs, and INT8. A training that is longer than one
    node's becomes several nodes.
    """
    candidates = (
        _from_initialisation(budget, space.max_length) if space.untrained else _from_the_model(budget)
    )
    return tuple(pipeline for pipeline in candidates if not space.violations(pipeline))


def whole_training(budget: Budget, max_length: int) -> Pipeline:
    """The architecture trained for all epochs that a pipeline may spend, without a teacher."""
    return Pipeline(_training(min(budget.epochs, max_length * _epochs_of_a_node())), _PLAIN)


def _from_the_model(budget: Budget) -> tuple[Pipeline, ...]:
    train = Train(epochs=min(budget.epochs, _epochs_of_a_node()))
    return (
        Pipeline(),
        Pipeline((train,), _PLAIN),
        Pipeline((Half(),)),
        Pipeline((QuantizeStatic(),)),
        Pipeline((_HALVED, train, QuantizeStatic()), _DISTILLED),
    )


def _from_initialisation(budget: Budget, max_length: int) -> tuple[Pipeline, ...]:
    trained = whole_training(budget, max_length)
    first = max(1, budget.epochs // 2)
    halves = (*_training(first), _HALVED, *_training(budget.epochs - first))
    return (
        trained,
        Pipeline((*trained.nodes, Half()), trained.recipe),
        Pipeline((*trained.nodes, QuantizeStatic()), trained.recipe),
        Pipeline(trained.nodes, _DISTILLED),
        Pipeline((*halves, QuantizeStatic()), _DISTILLED),
    )


def _training(epochs: int) -> tuple[Operation, ...]:
    """The fewest nodes that train for so many epochs together, of lengths that differ by one at most."""
    count = -(-epochs // _epochs_of_a_node())
    return tuple(Train(epochs=(epochs + index) // count) for index in range(count))


def _epochs_of_a_node() -> int:
    """Most epochs that one node may train."""
    field = next(field for field in declared_fields(Train) if field.name == "epochs")
    return int(field.distribution.high)  # type: ignore[attr-defined]
