from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from support.detections import random_objects, raw_of

from petra_optuna.errors import TaskError
from petra_optuna.tasks.detection.boxes import Detections
from petra_optuna.tasks.detection.metric import average_precision, map50_95

SIDE = 128


def _objects() -> np.ndarray:
    return np.array([[[0, 20, 20, 10, 10], [0, 60, 60, 10, 10], [-1, 0, 0, 0, 0]]], dtype=np.float32)


def _detections(*rows: tuple[float, ...]) -> Detections:
    """One image's detections of class 0: left, top, right, bottom, score."""
    table = torch.tensor(rows)
    zeros = torch.zeros(len(rows), dtype=torch.int64)
    return Detections(zeros, table[:, :4], table[:, 4], zeros)


def test_perfect_predictions_score_one() -> None:
    targets = random_objects(20, 4, 3, SIDE, seed=0)
    spread = targets.clone()
    spread[..., 1:3] = torch.tensor([[20.0, 20.0], [100.0, 20.0], [20.0, 100.0], [100.0, 100.0]])
    spread[..., 3:] = targets[..., 3:].clamp(max=40.0)
    outputs = raw_of(spread, 3, SIDE).numpy()
    assert map50_95(SIDE)(outputs, spread.numpy()) == pytest.approx(1.0)
    assert map50_95(SIDE)(outputs, spread.roll(1, dims=0).numpy()) < 0.5


def test_one_right_one_wrong_and_one_of_overlap_072() -> None:
    """At overlaps up to 0.7: precision 1 up to recall 0.5, then 2/3; at those above only the first counts."""
    detections = _detections((15, 15, 25, 25, 0.9), (90, 90, 99, 99, 0.8), (55, 55, 65, 62.2, 0.7))
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert average_precision(detections, _objects(), classes=1) == pytest.approx((5 * low + 5 * high) / 10)


def test_a_class_without_objects_does_not_count() -> None:
    detections = _detections((15, 15, 25, 25, 0.9), (55, 55, 65, 65, 0.8))
    assert average_precision(detections, _objects(), classes=7) == pytest.approx(1.0)


def test_an_image_counts_as_often_as_it_is_given() -> None:
    """As a bootstrap does."""
    targets = random_objects(6, 4, 3, SIDE, seed=1)
    outputs = raw_of(targets, 3, SIDE).numpy()
    wrong = np.concatenate([outputs, outputs[::-1]])
    doubled = np.concatenate([targets.numpy(), targets.numpy()])
    assert 0 < map50_95(SIDE)(wrong, doubled) < 0.9


def test_nothing_to_find_is_no_value_and_nothing_found_is_zero() -> None:
    nothing = Detections(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0))
    assert average_precision(nothing, _objects(), classes=2) == 0.0
    absent = np.full((1, 2, 5), -1.0)
    assert np.isnan(average_precision(nothing, absent, classes=2))


def test_other_shapes_are_one_line() -> None:
    with pytest.raises(TaskError, match=r"got \(2, 7\) and \(2, 1, 5\)"):
        map50_95(SIDE)(np.zeros((2, 7)), np.zeros((2, 1, 5)))


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(TaskError, match=r"pip install petra-optuna\[detection\]"):
        map50_95(SIDE)
