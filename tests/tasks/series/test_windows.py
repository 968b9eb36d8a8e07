from __future__ import annotations

import numpy as np
import pytest
import torch

from petra_optuna.errors import DataError
from petra_optuna.tasks.series.windows import (
    Windows,
    parts_in_time,
    sliding_splits,
    starts_of,
    targets_behind,
)


@pytest.mark.parametrize(("count", "gap"), [(1000, 24), (997, 0), (19735, 144)])
def test_parts_follow_in_time_with_the_gap_and_leave_nothing_else_out(count: int, gap: int) -> None:
    parts = parts_in_time(count, 30, gap, (0.6, 0.2, 0.2))
    train, selection, test = (parts[name] for name in ("train", "selection", "test"))
    assert (train.start, test.stop) == (0, count)
    assert (selection.start - train.stop, test.start - selection.stop) == (gap, gap)
    assert len(train) / (count - 2 * gap) == pytest.approx(0.6, abs=1e-2)


def test_a_series_too_short_for_its_windows_is_refused() -> None:
    with pytest.raises(DataError, match="which leaves 20 for selection: fewer than two samples of 30 rows"):
        parts_in_time(140, 30, 20, (0.6, 0.2, 0.2))
    with pytest.raises(DataError, match="leaves 0 for train: fewer than two samples of 300 rows"):
        parts_in_time(100, 300, 200, (0.6, 0.2, 0.2))


def _sliding(window: int, horizon: int, stride: int = 1, holes: np.ndarray | None = None):
    """Splits of a series whose only channel is the number of the row, and whose target is that too."""
    rows = np.arange(400.0)
    return sliding_splits(
        rows[:, None],
        rows,
        np.zeros(399) if holes is None else holes,
        window=window,
        horizon=horizon,
        shares=(0.6, 0.2, 0.2),
        stride=stride,
    )


@pytest.mark.parametrize("horizon", [0, 1, 6])
def test_no_row_is_in_two_parts_and_a_gap_of_a_window_lies_between(horizon: int) -> None:
    window, seen = 12, []
    for split in _sliding(window, horizon).splits.values():
        batches = [(inputs[0], targets) for inputs, targets in split.batches(64)]
        rows = torch.cat([inputs.flatten() for inputs, _ in batches])
        targets = torch.cat([targets for _, targets in batches])
        last_target = targets.max() + (horizon - 1) / 2 if horizon else targets.max()
        seen.append((int(rows.min()), int(max(rows.max(), last_target))))
    (first, end_train), (selection, end_selection), (test, last) = seen
    assert (first, last) == (0, 399)
    assert selection - end_train == test - end_selection == window + 1


@pytest.mark.parametrize("horizon", [0, 1, 4])
def test_a_window_ends_before_its_target_begins(horizon: int) -> None:
    (inputs,), targets = next(_sliding(12, horizon).splits["train"].batches(8))
    assert inputs.shape == (8, 1, 12)
    assert torch.equal(inputs[:, 0], torch.arange(8.0)[:, None] + torch.arange(12.0))
    behind = inputs[:, 0, -1] + ((horizon + 1) / 2 if horizon else 0)
    torch.testing.assert_close(targets, behind)


def test_targets_by_hand() -> None:
    values, starts = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([0, 1])
    assert targets_behind(values, starts, 2, 0).tolist() == [2.0, 4.0]
    assert targets_behind(values, starts, 2, 1).tolist() == [4.0, 8.0]
    assert targets_behind(values, starts, 2, 2).tolist() == [6.0, 12.0]
    classes = np.array([0, 1, 2, 3, 4])
    assert targets_behind(classes, starts, 2, 2).tolist() == [3, 4]


def test_windows_across_missing_rows_are_left_out() -> None:
    holes = np.array([0, 0, 0, 1, 0, 0, 0, 0])  # nine rows, a hole behind the fourth
    assert starts_of(holes, 3, 0, 1).tolist() == [0, 1, 4, 5, 6]
    assert starts_of(holes, 2, 1, 1).tolist() == [0, 1, 4, 5, 6]
    assert starts_of(holes, 3, 0, 2).tolist() == [0, 4, 6]
    everywhere = np.ones(399)
    with pytest.raises(DataError, match="the train part has 0 windows without missing rows; 2 are needed"):
        _sliding(12, 1, holes=everywhere)


def test_windows_share_their_rows_in_memory() -> None:
    rows = torch.randn(1000, 3)
    windows = Windows(rows, torch.arange(900), 100, torch.zeros(900))
    batch, _ = windows.__getitems__([5, 7])
    assert torch.equal(batch[1], rows[7:107].T)
    assert torch.equal(windows[7][0], batch[1])
    assert windows._windows.data_ptr() == rows.data_ptr()


def test_the_fingerprint_follows_rows_windows_and_targets() -> None:
    rows, starts, targets = torch.randn(50, 2), torch.arange(30), torch.randn(30)
    one = Windows(rows, starts, 10, targets).fingerprint()
    assert Windows(rows.clone(), starts, 10, targets).fingerprint() == one
    others = [
        Windows(rows + 1, starts, 10, targets),
        Windows(rows, starts + 1, 10, targets),
        Windows(rows, starts, 11, targets),
        Windows(rows, starts, 10, targets + 1),
    ]
    assert len({one, *(other.fingerprint() for other in others)}) == 5
