"""Which columns of a table of events are read, and how the numbers of an event are made of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from petra_optuna.errors import DataError
from petra_optuna.models.event_encoder import FIRST_VALUE

Transform = Literal["none", "log"]
TRANSFORMS: tuple[Transform, ...] = ("none", "log")
LONGEST = 1000
"""Events of a client that are read, the last ones; the default of a schema."""


@dataclasses.dataclass(frozen=True)
class Category:
    """A column of categories.

    Attributes:
        name: Name of the column.
        width: Width of the embedding.
        rows: Most rows of the embedding, padding and unknown values included; None for as many as the
            training data has values.
    """

    name: str
    width: int
    rows: int | None = None

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            DataError: When there is no room for a value.
        """
        if self.width < 1 or (self.rows is not None and self.rows <= FIRST_VALUE):
            raise DataError(
                f"category {self.name!r} needs a width of at least 1 and more than {FIRST_VALUE} rows "
                f"(padding and unknown values take two), got {self.width} and {self.rows}"
            )


@dataclasses.dataclass(frozen=True)
class Number:
    """A numeric column.

    Attributes:
        name: Name of the column.
        transform: ``log`` for ``sign(x) log(1 + |x|)``, which amounts of money need; ``none``.
    """

    name: str
    transform: Transform = "none"

    def __post_init__(self) -> None:
        """Check the transform.

        Raises:
            DataError: When it is unknown.
        """
        if self.transform not in TRANSFORMS:
            names = " or ".join(TRANSFORMS)
            raise DataError(f"`transform` of number {self.name!r} must be {names}, got {self.transform!r}")


@dataclasses.dataclass(frozen=True)
class EventSchema:
    """Columns of a table of events, one event a row.

    Attributes:
        client: Column that names the client.
        time: Column of numbers or of ISO times by which a client's events are sorted.
        categories: Columns of categories.
        numbers: Numeric columns.
        longest: Events of a client that are read, the last ones.
    """

    client: str
    time: str
    categories: tuple[Category, ...] = ()
    numbers: tuple[Number, ...] = ()
    longest: int = LONGEST

    def __post_init__(self) -> None:
        """Check that an event says something, and each column once.

        Raises:
            DataError: When it does not.
        """
        if not self.categories and not self.numbers:
            raise DataError("the schema names neither categories nor numbers; name a column of one of them")
        names = self._values
        for name in names:
            if names.count(name) > 1 or name == self.client:
                raise DataError(f"the schema names column {name!r} twice; name it once")
        if self.longest < 1:
            raise DataError(f"`longest` of the schema must be at least 1, got {self.longest}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, each once."""
        return tuple(dict.fromkeys((self.client, self.time, *self._values)))

    @property
    def _values(self) -> list[str]:
        return [category.name for category in self.categories] + [number.name for number in self.numbers]

    def key(self) -> dict[str, Any]:
        """JSON-ready form, on which stored events depend."""
        return dataclasses.asdict(self)


def transformed(values: np.ndarray, transform: Transform) -> np.ndarray:
    """Values as the encoder reads them, float32.

    Args:
        values: Numbers (N,).
        transform: Transform of the column.
    """
    if transform == "log":
        values = np.sign(values) * np.log1p(np.abs(values))
    return values.astype(np.float32)
