"""A search leaves out operations that find nothing to change in its model, so that no trial fails on them."""

from __future__ import annotations

import dataclasses
import logging

from petra_optuna.errors import OperationFailed, foreign_errors_as
from petra_optuna.operations import EVERY_OPERATION, Context
from petra_optuna.pipeline import Operation, Recipe, SearchSpace
from petra_optuna.tasks import Task

logger = logging.getLogger(__name__)


def applicable(space: SearchSpace, task: Task) -> SearchSpace:
    """The space without the built-in structural operations that fail on the task's model.

    A structural node fails where it finds nothing to change whatever its fields are; where its fields ask for
    too little, it reports that nothing changed. What is left out is logged with its reason.

    Args:
        space: Search space.
        task: Task whose model the operations are tried on, each once.
    """
    reasons = {operation: _why_not(operation, task) for operation in space.body}
    for operation, reason in reasons.items():
        if reason is not None:
            logger.warning("%s is left out of the search: %s", operation.name, reason)
    return dataclasses.replace(space, body=tuple(kept for kept in space.body if reasons[kept] is None))


def _why_not(operation: type[Operation], task: Task) -> str | None:
    if operation.kind != "structure" or operation not in EVERY_OPERATION:
        return None
    try:
        with foreign_errors_as(OperationFailed, operation.name):
            operation().apply(task.model, Context(task, Recipe(), seed=0, epochs=0))
    except OperationFailed as error:
        return str(error)
    return None
