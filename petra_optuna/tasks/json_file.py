"""JSON files that a user gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from petra_optuna.errors import DataError, one_line


def read_json(path: Path) -> Any:
    """What a JSON file in UTF-8 holds.

    Raises:
        DataError: When it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable JSON file: {one_line(error)}") from error
