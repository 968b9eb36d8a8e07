"""Ranges of a graph's tensors on calibration batches, within which static INT8 rounds."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization as ort
from onnxruntime.quantization.calibrate import EntropyCalibrater, MinMaxCalibrater, PercentileCalibrater

from petra_optuna.scratch import scratch_folder

_LEVELS = 256
_CANDIDATES = 64
_CALIBRATORS: Mapping[str, Any] = {
    "minmax": MinMaxCalibrater,
    "percentile": PercentileCalibrater,
    "entropy": EntropyCalibrater,
}


def calibrate(
    model: onnx.ModelProto,
    feeds: Sequence[dict[str, np.ndarray]],
    operators: Collection[str],
    method: str,
    percentile: float,
    tensors: Collection[str] | None = None,
) -> ort.TensorsData:
    """The range of every float input and output of these operators.

    Args:
        model: The float graph; it is not changed.
        feeds: Batches of inputs by name. A batch is reduced before the next is run, but percentile and
            entropy hold every tensor of a batch at once.
        operators: Operator types.
        method: Rule of the range: ``minmax`` takes the extremes, ``percentile`` the range that holds a share
            of the magnitudes, ``entropy`` the one that loses least information in 256 steps (see
            ``entropy_range``).
        percentile: Share of the magnitudes, in percent.
        tensors: Names of the tensors that are rounded; all where None. Others may hold values that have no
            range.
    """
    options: dict[str, Any] = {"minmax": {}, "entropy": {"num_bins": 2048}}.get(
        method, {"percentile": percentile, "symmetric": True}
    )
    with scratch_folder("calibration") as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        calibrator = _only(_CALIBRATORS[method], tensors)(
            path, list(operators), str(Path(folder, "augmented.onnx")), **options
        )
        calibrator.augment_graph()
        calibrator.create_inference_session()
        for batch in feeds:
            calibrator.collect_data(_OneBatch(batch))
        if method != "entropy":
            return calibrator.compute_data()
        # The tool's own search compares 128 bins with 128 levels, which finds the extremes; with more bins
        # it takes minutes.
        return ort.TensorsData(
            ort.CalibrationMethod.MinMax,
            {
                name: entropy_range(histogram[0], histogram[1], histogram[2], histogram[3])
                for name, histogram in calibrator.collector.get_histogram_dict().items()
            },
        )


def entropy_range(
    histogram: np.ndarray, edges: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The range around zero whose 256 steps lose least information (arXiv 2004.09602, section 3.3).

    Values beyond the range count at its ends. The loss is the relative entropy of the histogram to itself
    with each step spread evenly over its occupied bins. Zero itself, half of what a ReLU lets through, is
    exact in any range and is left out.

    Args:
        histogram: Counts, (bins,), symmetric around zero.
        edges: Edges of the bins, (bins + 1,).
        low: Smallest value seen.
        high: Largest value seen.

    Returns:
        Lowest and highest value of the range, within the values seen.
    """
    centre = len(histogram) // 2
    histogram = histogram.copy()
    histogram[centre] = histogram[[centre - 1, centre + 1]].max()
    widths = np.unique(np.linspace(_LEVELS // 2, centre, _CANDIDATES).astype(int))
    losses = [_loss(histogram, centre - width, centre + width) for width in widths]
    reach = edges[centre + widths[int(np.argmin(losses))]].astype(low.dtype)
    return np.maximum(low, -reach), np.minimum(high, reach)


def _loss(histogram: np.ndarray, start: int, stop: int) -> float:
    occupied = np.flatnonzero(histogram)
    if not len(occupied):
        return 0.0
    start, stop = max(start, occupied[0]), min(stop, occupied[-1] + 1)
    if start >= stop:  # every value lies beyond the range
        return math.inf
    inside = histogram[start:stop].astype(float)
    clipped = inside.copy()
    clipped[0] += histogram[:start].sum()
    clipped[-1] += histogram[stop:].sum()
    step = np.arange(len(inside)) * min(_LEVELS, len(inside)) // len(inside)
    filled = inside > 0
    spread = np.where(
        filled, (np.bincount(step, inside) / np.maximum(np.bincount(step, filled), 1))[step], 0.0
    )
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    present = p > 0
    # A bin that only clipped values reach has no counterpart; it counts as one value would.
    return float(np.sum(p[present] * np.log(p[present] / np.maximum(q[present], 1 / clipped.sum()))))


def _only(calibrator: Any, tensors: Collection[str] | None) -> Any:
    """The class of calibrators, of these tensors alone."""
    if tensors is None:
        return calibrator
    chosen = set(tensors)

    class Chosen(calibrator):  # type: ignore[misc]
        def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[set[str], dict[str, Any]]:
            found, infos = super().select_tensors_to_calibrate(model)
            return found & chosen, infos

    return Chosen


class _OneBatch:
    """ONNX Runtime's ``CalibrationDataReader`` of a single batch."""

    def __init__(self, feeds: dict[str, np.ndarray]) -> None:
        self._rest = [feeds]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._rest.pop() if self._rest else None
