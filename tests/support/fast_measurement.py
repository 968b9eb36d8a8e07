"""Files are measured, but not long: for tests of something else than how exact a figure is.

``python -m support.fast_measurement`` is ``petra`` in another process, measuring so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from petra_optuna import cli
from petra_optuna.measurement import MeasuringProcess, Schedule

SCHEDULE = Schedule(block_s=0.005, settle_s=0.001, min_pairs=4, max_pairs=4)


@contextlib.contextmanager
def short_measurements() -> Iterator[None]:
    """Short blocks and few pairs, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MeasuringProcess.__init__.__kwdefaults__, "schedule", SCHEDULE)
        patch.setattr("petra_optuna.study.baseline.EAGER_S", 0.01)
        yield


if __name__ == "__main__":
    with short_measurements():
        cli.main()
