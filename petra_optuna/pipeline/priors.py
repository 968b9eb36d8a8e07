"""Values near which new nodes are mostly drawn: what is known of a model beforehand, as plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

from petra_optuna.pipeline.fields import Value, declared_fields, former_names, present_names
from petra_optuna.pipeline.operation import Operation
from petra_optuna.pipeline.space import SearchSpace


@dataclasses.dataclass(frozen=True)
class FieldPrior:
    """A value near which most fresh values of one field are drawn.

    Attributes:
        operation: Name of the operation.
        field: Name of one of its numeric fields.
        value: Centre of the draws, within the field's range.
        when: Values of other fields, by name, for which the prior holds.
    """

    operation: str
    field: str
    value: float
    when: Mapping[str, Value] = dataclasses.field(default_factory=dict)

    @classmethod
    def within(
        cls, operation: type[Operation], field: str, value: float, when: Mapping[str, Value] | None = None
    ) -> FieldPrior:
        """A prior at the value of the field's range that is nearest to ``value``."""
        distribution = next(known.distribution for known in declared_fields(operation) if known.name == field)
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        nearest = min(max(value, distribution.low), distribution.high)
        return cls(operation.name, field, nearest, when or {})

    def in_space(self, space: SearchSpace) -> FieldPrior:
        """The prior with the names that its fields have now, where its operation is one of the space."""
        if self.operation not in space.names:
            return self
        operation = space.operation(self.operation)
        field = former_names(operation).get(self.field, self.field)
        return dataclasses.replace(self, field=field, when=present_names(operation, self.when))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: the arguments by name."""
        return {**dataclasses.asdict(self), "when": dict(self.when)}
