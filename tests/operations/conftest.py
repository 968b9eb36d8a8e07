"""Fixtures of the tests of operations."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_files(probed_here: None) -> None:
    """All tests of operations open their files here; those of ``deploy`` in a process of its own."""
