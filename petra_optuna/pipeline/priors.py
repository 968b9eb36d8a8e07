"""Where the value of a field begins in a new node: what is known of a model beforehand, as plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

from petra_optuna.pipeline.fields import Value, declared_fields
from petra_optuna.pipeline.operation import Operation


@dataclasses.dataclass(frozen=True)
class FieldPrior:
    """A value near which fresh draws of one field begin.

    Attributes:
        operation: Name of the operation.
        field: A numeric field of it.
        value: Within the field's range.
        when: Values of other fields for which this holds.
    """

    operation: str
    field: str
    value: float
    when: Mapping[str, Value] = dataclasses.field(default_factory=dict)

    @classmethod
    def within(
        cls, kind: type[Operation], field: str, value: float, when: Mapping[str, Value] | None = None
    ) -> FieldPrior:
        """A start at the value of the field's range that is nearest to ``value``."""
        found = next(each.distribution for each in declared_fields(kind) if each.name == field)
        assert isinstance(found, FloatDistribution | IntDistribution)
        return cls(kind.name, field, min(max(value, found.low), found.high), when or {})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: the arguments by name."""
        return {**dataclasses.asdict(self), "when": dict(self.when)}
