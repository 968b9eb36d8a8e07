"""Fixtures of the tests of studies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from petra_optuna.measurement import MeasuringProcess, Schedule


@pytest.fixture(scope="module", autouse=True)
def short_measurements() -> Iterator[None]:
    """Files are measured, but not long: what these tests ask is not how exact a figure is."""
    short = Schedule(block_s=0.01, settle_s=0.001, min_pairs=2, max_pairs=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MeasuringProcess.__init__.__kwdefaults__, "schedule", short)
        yield
