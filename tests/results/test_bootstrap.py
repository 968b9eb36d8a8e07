"""The resampling of a metric that learns from a part of the split first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from petra_optuna.results.confirmation.bootstrap import resample
from petra_optuna.tasks import Metric
from petra_optuna.tasks.metrics import correct, metric


def test_what_a_metric_prepares_is_prepared_once_for_each_file_and_rows_left_out_are_never_drawn() -> None:
    calls = []

    def prepare(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(outputs))
        return outputs[3:], targets[3:]

    targets = np.array([9, 9, 9, 0, 1, 1, 0])
    outputs = [np.arange(7.0), -np.arange(7.0)]
    own = Metric("share", "maximize", lambda outputs, targets: float((targets < 9).mean()), prepare=prepare)
    values = resample(own, outputs, targets, 20, np.random.default_rng(0))
    assert calls == [7, 7]
    assert values.shape == (20, 2)
    assert (values == 1.0).all()


@pytest.mark.parametrize("per_sample", [None, correct])
def test_resamples_are_those_of_the_rows_that_are_left(per_sample) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    plain = dataclasses.replace(metric("accuracy"), per_sample=per_sample)
    preparing = dataclasses.replace(plain, prepare=lambda outputs, targets: (outputs[10:], targets[10:]))
    expected = resample(plain, [outputs[10:]], targets[10:], 30, np.random.default_rng(1))
    assert np.array_equal(resample(preparing, [outputs], targets, 30, np.random.default_rng(1)), expected)
