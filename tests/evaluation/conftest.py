"""Fixtures of the tests of evaluation."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_files(probed_here: None) -> None:
    """All tests of evaluation open their files here; those of ``deploy`` in a process of its own."""
