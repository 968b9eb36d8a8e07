"""What a time series of one's own is: a JSON file that names its table, target and window."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from petra_optuna.errors import DataError
from petra_optuna.tasks.json_file import read_json

NAME = "series.json"
"""Name of the file in a folder."""

Kind = Literal["regression", "classification"]


@dataclasses.dataclass(frozen=True)
class Schema:
    """A table and what to predict of it.

    Attributes:
        file: Path of a CSV or parquet file, or of a folder of parquet files, relative to the schema.
        time: Column of times.
        target: Column to predict.
        window: Rows that the model sees.
        kind: ``regression`` or ``classification``.
        horizon: Rows behind the window. Of values the mean over them is predicted, of classes the one at
            their end; 0 stands for the window's own last row.
        channels: Columns that the model sees; all but ``time`` when empty, and but ``target`` where that is
            a class or the horizon is 0.
        metric: Metric of quality; ``rmse`` or ``accuracy`` when empty.
        stride: Rows from a window to the next one.
        gap: Rows left out between train, selection and test; ``window`` when None.
        shares: Shares of the rows for train, selection and test.
        epochs: Epochs of the base's training.
        filters: Filters of each branch of InceptionTime.
        depth: Number of its modules.

    Raises:
        DataError: On construction, when a value breaks a rule.
    """

    file: str
    time: str
    target: str
    window: int
    kind: Kind = "regression"
    horizon: int = 1
    channels: tuple[str, ...] = ()
    metric: str = ""
    stride: int = 1
    gap: int | None = None
    shares: tuple[float, ...] = (0.6, 0.2, 0.2)
    epochs: int = 10
    filters: int = 32
    depth: int = 6

    def __post_init__(self) -> None:
        """Check the rules."""
        leasts = {"window": 2, "horizon": 0, "stride": 1, "epochs": 1, "filters": 1, "depth": 1}
        for name, least in leasts.items():
            if getattr(self, name) < least:
                raise DataError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        if self.gap is not None and self.gap < 0:
            raise DataError(f"`gap` must be at least 0, got {self.gap}")
        if self.kind not in get_args(Kind):
            raise DataError(f"`kind` must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if len(self.shares) != 3 or not all(share > 0 for share in self.shares):
            raise DataError(f"`shares` must be three positive numbers, got {list(self.shares)}")
        if self.target in self.channels and (self.horizon == 0 or self.kind == "classification"):
            raise DataError(
                f"`channels` names the target {self.target!r}, which would be seen before it is predicted; "
                "leave it out, or predict values with a `horizon` of 1 or more"
            )


def read_schema(data_root: Path) -> tuple[Schema, Path]:
    """The schema of a JSON file, or of ``series.json`` in a folder, and the path of its table.

    Raises:
        DataError: When it is missing, no JSON, or a value is unknown, missing or of another type.
    """
    path = data_root / NAME if data_root.is_dir() else data_root
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a JSON file with file, time, target and window")
    given = read_json(path)
    if not isinstance(given, dict):
        raise DataError(f"{path} must hold an object with file, time, target and window")
    try:
        schema = Schema(**_typed(given))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return schema, path.parent / schema.file


def _typed(given: dict[str, Any]) -> dict[str, Any]:
    """The values by name, lists as tuples."""
    fields = {field.name: field for field in dataclasses.fields(Schema)}
    types = get_type_hints(Schema)
    unknown = [name for name in given if name not in fields]
    if unknown:
        raise DataError(f"unknown value {unknown[0]!r}; there are {', '.join(fields)}")
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in given]
    if missing:
        raise DataError(f"`{missing[0]}` is missing; {', '.join(required)} must be given")
    values = {}
    for name, value in given.items():
        wanted = types[name]
        if not _fits(value, wanted):
            expected = {int: "a whole number", int | None: "a whole number or null", str: "a text"}
            raise DataError(f"`{name}` must be {expected.get(wanted, 'a list')}, got {value!r}")
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _fits(value: Any, wanted: Any) -> bool:
    if wanted in (int, int | None):
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            value is None and wanted is not int
        )
    if wanted == tuple[str, ...]:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if wanted == tuple[float, ...]:
        return isinstance(value, list) and all(isinstance(one, int | float) for one in value)
    return isinstance(value, str)
