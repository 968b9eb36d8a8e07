"""Where the value of a field begins in a new node: what is known of a model beforehand, as plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from petra_optuna.pipeline.fields import Value


@dataclasses.dataclass(frozen=True)
class Start:
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: the arguments by name."""
        return {**dataclasses.asdict(self), "when": dict(self.when)}
