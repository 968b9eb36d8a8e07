"""Tasks that many tests share. Nobody changes them: operations work on copies."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from petra_optuna.measurement import MeasuringProcess, Schedule
from petra_optuna.tasks import Task, build_task

pytest_plugins = ["fixtures_postgres"]


@pytest.fixture(scope="session")
def digits_task(request: pytest.FixtureRequest) -> Task:
    """The digits with their real base, trained once and kept in pytest's cache folder."""
    assert request.config.cache is not None
    return build_task("digits", cache_dir=Path(request.config.cache.mkdir("petra_digits")))


@pytest.fixture(scope="session")
def quick_measuring() -> Iterator[None]:
    """Measuring with short blocks and few pairs, where a test is about something else."""
    schedule = Schedule(block_s=0.005, settle_s=0.001, min_pairs=2, max_pairs=2)
    quick = functools.partial(MeasuringProcess, schedule=schedule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("petra_optuna.study.workbench.MeasuringProcess", quick)
        patch.setattr("petra_optuna.study.yardstick.MeasuringProcess", quick)
        yield


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """A small task whose pipelines take seconds."""
    return tiny.make()
