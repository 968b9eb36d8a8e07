"""Fixtures of the tests of results."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def short(measured_shortly: None) -> None:
    """All tests of results measure shortly."""
