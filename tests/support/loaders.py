"""Loaders for tasks whose quality no test looks at."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import DataLoader, Subset


def apart(loader: DataLoader[Any], short: int = 1) -> DataLoader[Any]:
    """A loader of a copy of the data without its last rows, which may be another split."""
    rows = range(len(loader.dataset) - short)  # type: ignore[arg-type]
    return DataLoader(
        Subset(copy.deepcopy(loader.dataset), rows),
        batch_size=loader.batch_size,
        collate_fn=loader.collate_fn,
    )
