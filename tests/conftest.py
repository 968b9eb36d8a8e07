"""Tasks that many tests share. Nobody changes them: operations work on copies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import small_task
from support.fast_measurement import own_lock, probes_here, short_measurements
from support.shared_exports import own_templates, quick_exporter, shared_templates

from petra_optuna.tasks import Task, build_task

pytest_plugins = ["support.postgres"]


@pytest.fixture(scope="session")
def digits_task(request: pytest.FixtureRequest) -> Task:
    """The digits with their real base, trained once and kept in pytest's cache folder."""
    assert request.config.cache is not None
    return build_task("digits", cache_dir=Path(request.config.cache.mkdir("petra_digits")))


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The command takes signals over for good; later tests start processes that inherit what it leaves."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def measured_alone() -> Iterator[None]:
    """See ``support.fast_measurement``."""
    with own_lock():
        yield


@pytest.fixture(scope="session", autouse=True)
def exported_quickly() -> Iterator[None]:
    """See ``support.shared_exports``."""
    with quick_exporter():
        yield


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """See ``support.shared_exports``; tests of exports themselves have a fixture of this name instead."""
    with shared_templates():
        yield


@pytest.fixture
def exported_anew(exported_once: None) -> Iterator[None]:
    """For a test of what is exported once and what again."""
    with own_templates():
        yield


@pytest.fixture(scope="module")
def probed_here() -> Iterator[None]:
    """See ``support.fast_measurement``."""
    with probes_here():
        yield


@pytest.fixture(scope="module")
def measured_shortly() -> Iterator[None]:
    """See ``support.fast_measurement``."""
    with short_measurements():
        yield


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """A small task whose pipelines take seconds."""
    return small_task.make()
