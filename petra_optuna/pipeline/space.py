"""Which operations a search may use, how long pipelines may get, and which orders are legal."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    CategoricalDistribution,
    IntDistribution,
    distribution_to_json,
)

from petra_optuna.errors import PipelineError
from petra_optuna.pipeline.fields import Fielded, Value, declared_fields, former_names
from petra_optuna.pipeline.operation import Operation
from petra_optuna.pipeline.pipeline import Pipeline
from petra_optuna.pipeline.recipe import Recipe

NO_CONVERSION = "none"
RECIPE = "recipe"
"""Owner of the recipe's fields, beside the names of the operations."""


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Owns name -> class; there is no global registry.

    Attributes:
        body: Classes that may stand in the body, by distinct names.
        conversions: Classes that may convert the file; "none" is always possible as well.
        max_length: Most nodes of a body.
        untrained: Whether pipelines start from initialisation: then the body has a first node, and that
            is one of the classes that may start from there (``Operation.from_initialisation``).

    Raises:
        PipelineError: On construction, when the lists are empty, hold a class of the wrong kind or
            two of one name, ``max_length`` is below 1, or no class can stand first.

    Example:
        >>> space = SearchSpace(body=(Prune, Train), conversions=(Half,), max_length=2)
        >>> space.names
        ('prune', 'train', 'fp16')
    """

    body: tuple[type[Operation], ...]
    conversions: tuple[type[Operation], ...] = ()
    max_length: int = 5
    untrained: bool = False

    def __post_init__(self) -> None:
        """Check the rules named in the class docstring."""
        names = [operation.name for operation in self.operations]
        if not self.body or self.max_length < 1:
            raise PipelineError(
                "a search space needs at least one body operation and `max_length` of 1 or more, "
                f"got {len(self.body)} and {self.max_length}"
            )
        if len(set(names)) < len(names) or NO_CONVERSION in names:
            raise PipelineError(
                f"operations need distinct names other than {NO_CONVERSION!r}, got {', '.join(names)}"
            )
        misplaced = [operation.name for operation in self.body if operation.kind == "conversion"]
        misplaced += [operation.name for operation in self.conversions if operation.kind != "conversion"]
        if misplaced:
            raise PipelineError(f"body and conversions are mixed up: {', '.join(misplaced)}")
        if not self.operations_at(0):
            raise PipelineError(
                "pipelines start from initialisation, but no operation of the space may train a model from "
                f"there, got {', '.join(names)}; add Train"
            )

    @property
    def operations(self) -> tuple[type[Operation], ...]:
        """Body classes, then conversions."""
        return self.body + self.conversions

    def operation(self, name: str, index: int | None = None) -> type[Operation]:
        """The class of that name.

        Args:
            name: Name of the operation.
            index: Index of a body node; where given, the class must be one that may stand there.

        Raises:
            PipelineError: When there is none.
        """
        classes = self.operations if index is None else self.operations_at(index)
        for operation in classes:
            if operation.name == name:
                return operation
        names = ", ".join(operation.name for operation in classes)
        where = "this space has" if index is None else f"node {index} may be"
        raise PipelineError(f"unknown operation {name!r}; {where} {names}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all operations."""
        return tuple(operation.name for operation in self.operations)

    @property
    def length_distribution(self) -> IntDistribution:
        """Range of the body's length."""
        return IntDistribution(self.min_length, self.max_length)

    @property
    def min_length(self) -> int:
        """Fewest nodes of a body."""
        return int(self.untrained)

    @functools.cached_property
    def former_names(self) -> Mapping[tuple[str, str], str]:
        """(operation or ``recipe``, former name of a field) -> its present name."""
        owners: dict[str, type[Fielded]] = {RECIPE: Recipe}
        owners |= {operation.name: operation for operation in self.operations}
        return {
            (owner, former): name
            for owner, cls in owners.items()
            for former, name in former_names(cls).items()
        }

    def operations_at(self, index: int) -> tuple[type[Operation], ...]:
        """Classes that may be the body node of this index."""
        if index or not self.untrained:
            return self.body
        return tuple(operation for operation in self.body if operation.from_initialisation)

    def body_distribution(self, index: int) -> CategoricalDistribution:
        """Choices of the body node of this index."""
        return CategoricalDistribution(tuple(operation.name for operation in self.operations_at(index)))

    @property
    def conversion_distribution(self) -> CategoricalDistribution:
        """Choices of the conversion."""
        return CategoricalDistribution((NO_CONVERSION, *(operation.name for operation in self.conversions)))

    def violations(self, pipeline: Pipeline) -> tuple[str, ...]:
        """Why the pipeline does not belong to this space, one sentence each; empty when it does."""
        reasons = []
        if len(pipeline.body) > self.max_length:
            reasons.append(f"the body has {len(pipeline.body)} nodes, at most {self.max_length} are allowed")
        first = self.operations_at(0)
        if self.untrained and not (pipeline.body and type(pipeline.body[0]) in first):
            names = " or ".join(operation.name for operation in first)
            reasons.append(f"pipelines start from initialisation, so the first node must be {names}")
        for node in pipeline.nodes:
            if type(node) not in self.operations:
                reasons.append(f"{node.name} is not in this space ({', '.join(self.names)})")
        return tuple(reasons)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready specification, with a digest of every declared field and range.

        A field counts under the name that it was first stored under. So a space whose fields got other names
        is the same one as before, and its studies can be continued.
        """
        declared = {operation.name: _declaration(operation) for operation in self.operations}
        declared[RECIPE] = _declaration(Recipe)
        digest = hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()
        return {
            "body": [operation.name for operation in self.body],
            "conversions": [operation.name for operation in self.conversions],
            "max_length": self.max_length,
            "fields_sha256": digest,
            # Studies made before there was such a mode have no such key, and are the same as they were.
            **({"untrained": True} if self.untrained else {}),
        }


def _declaration(cls: type[Fielded]) -> list[tuple[str, str, Value]]:
    return [
        (field.first_name, distribution_to_json(field.distribution), field.default)
        for field in declared_fields(cls)
    ]
