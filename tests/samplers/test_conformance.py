"""Optuna's own suites, on objectives that do not use our encoding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from petra_optuna.samplers import PetraSampler


class TestPetraSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        # Small, so that the suites reach the trials after the random ones.
        return lambda: PetraSampler(None, seed=0, population_size=2, candidates=4)
