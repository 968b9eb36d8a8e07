"""The files of the archives, padded batches, and controls of regression."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.errors import DataError
from petra_optuna.nn.inputs import Inputs, forward, to_feeds
from petra_optuna.operations import Context, Half, Prune, QuantizeDynamic, QuantizeStatic
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task
from studies.series import controls, ucr
from studies.series.padded import padded_batch, typical_first
from studies.series.ts_file import read_ts

HEADER = """#A comment
@problemName Made
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
"""


def _file(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "\n".join(lines) + "\n")
    return path


def _line(values: np.ndarray, label: str) -> str:
    return ":".join([*(",".join(f"{value:.5g}" for value in channel) for channel in values), label])


def _write_set(root: Path, *, varied: bool) -> Path:
    """A set whose class is the sign of a trend; series of 8 to 20 steps, or of 16."""
    rng = np.random.default_rng(0)
    for part, count in (("TRAIN", 24), ("TEST", 12)):
        lines = []
        for row in range(count):
            steps = int(rng.integers(8, 21)) if varied else 16
            trend = np.linspace(-1, 1, steps) * (1 if row % 2 else -1)
            noise = 0.3 * rng.normal(size=(2, steps))
            lines.append(_line(5 + np.stack([trend, 0 * trend]) + noise, "up" if row % 2 else "down"))
        _file(root / "Made" / f"Made_{part}.ts", *lines)
    return root


def test_a_file_gives_its_series_each_of_its_own_length(tmp_path: Path) -> None:
    data = read_ts(_file(tmp_path / "a.ts", "1,2,3:4,5,6:up", "", "%comment", "1.5,-2e0:0,1:down"))
    assert data.classes == ("up", "down")
    assert data.labels == ("up", "down")
    assert [series.tolist() for series in data.series] == [[[1, 2, 3], [4, 5, 6]], [[1.5, -2], [0, 1]]]


BAD = {
    "no data": (["1,2:up"], "@classLabel true up down\n", "has no line @data; it is no .ts file or is cut"),
    "no series": ([], HEADER, "has no series after @data"),
    "one class": (["1:up"], "@classLabel true up\n@data\n", "names fewer than two classes"),
    "a value as target": (["1:2.5"], "@targetLabel true\n@data\n", "names fewer than two classes"),
    "time stamps": (["1:up"], "@timeStamps true\n@classLabel true a b\n@data\n", "has time stamps"),
    "unknown label": (["1,2:3,4:left"], HEADER, r"a.ts:10 has the label 'left'; the header names up, down"),
    "cut line": (["1,2:3,4:up", "1,2:3,4"], HEADER, r"a.ts:11 has the label '3,4'"),
    "lost channel": (["1,2:3,4:up", "1,2:up"], HEADER, r"a.ts:11 has 1 channels, the first line 2"),
    "missing value": (["1,?:3,4:up"], HEADER, r"a.ts:10 has a value that is no number"),
    "nan": (["1,nan:3,4:up"], HEADER, r"a.ts:10 has channels of several lengths, or values that are not"),
    "unlike channels": (["1,2:3:up"], HEADER, r"a.ts:10 has channels of several lengths"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, case: str) -> None:
    lines, header, message = BAD[case]
    with pytest.raises(DataError, match=message):
        read_ts(_file(tmp_path / "a.ts", *lines, header=header))


def test_a_set_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Made_TRAIN.ts is not a readable .ts file"):
        ucr.read_set("Made", tmp_path)


def test_batches_are_padded_with_zeros_to_their_longest() -> None:
    series, lengths, targets = padded_batch([(torch.ones(2, 3), 1), (torch.ones(2, 5), 0)])
    assert series.shape == (2, 2, 5)
    assert (lengths.tolist(), targets.tolist()) == ([3, 5], [1, 0])
    assert series[0].sum() == 6
    assert not series[0, :, 3:].any()


def test_the_first_samples_are_of_the_90th_percentile() -> None:
    lengths = [*range(1, 101)]
    order = typical_first(lengths)
    assert sorted(order) == [*range(100)]
    assert {lengths[row] for row in order[:8]} == {*range(87, 95)}


@pytest.fixture(scope="module", autouse=True)
def _short_epochs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ucr, "LEAST_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def varied(home: Path) -> Task:
    data = ucr.read_set("Made", _write_set(home / "varied", varied=True))
    assert "dynamic, series have 8 to 20 steps" in data.axis
    return ucr.task_of(data, home / "cache", epochs=2, filters=4)


@pytest.fixture(scope="module")
def exported(varied: Task) -> onnx.ModelProto:
    assert _accuracy(varied) == 1.0
    return export_onnx(varied.model, varied.example, varied.dynamic)


def _accuracy(task: Task) -> float:
    def predict(inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            return forward(task.model, inputs).numpy()

    return task.evaluate(predict, task.selection)


def test_a_set_of_one_length_is_an_ordinary_task(home: Path) -> None:
    data = ucr.read_set("Made", _write_set(home / "fixed", varied=False))
    assert data.axis == "Made: the time axis is fixed, because every series has 16 steps"
    task = ucr.task_of(data, home / "cache", epochs=2, filters=4)
    assert task.test is not None
    assert (len(task.train), len(task.selection), len(task.test)) == (320, 8, 12)
    assert (task.dynamic, task.labels) == ({}, ("up", "down"))
    assert _accuracy(task) == 1.0
    again = ucr.task_of(data, home / "cache", epochs=2, filters=4)
    assert again.fingerprint == task.fingerprint


CONVERSIONS = {
    "float": (None, 1e-4, 1e-4),
    "static": (QuantizeStatic(), 1e-4, 0.2),
    "dynamic": (QuantizeDynamic(), 1e-2, 2e-2),  # its scale is that of the batch
    "fp16": (Half(), 1e-3, 1e-2),
}
"""A conversion, and the most by which the file may differ in and out of a batch, and from the model."""


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_file_takes_mixed_lengths_and_gives_each_series_what_it_gets_alone(
    varied: Task, exported: onnx.ModelProto, name: str
) -> None:
    conversion, most_alone, most = CONVERSIONS[name]
    context = Context(task=varied, recipe=Recipe(), seed=0, epochs=0)
    file = OnnxRuntimeModel(conversion.apply(exported, context).model if conversion else exported)
    (series, lengths), _ = next(varied.selection.batches(8))
    assert len(set(lengths.tolist())) > 2
    together = file.run(to_feeds((series, lengths)))
    spread = float(np.ptp(together))
    for row, length in enumerate(lengths.tolist()):
        alone = file.run(to_feeds((series[row : row + 1, :, :length], lengths[row : row + 1])))
        np.testing.assert_allclose(together[row], alone[0], atol=most_alone * spread)
    expected = forward(varied.model, (series, lengths)).detach().numpy()
    np.testing.assert_allclose(together, expected, atol=most * spread)


def test_a_pruned_network_still_masks(varied: Task) -> None:
    context = Context(task=varied, recipe=Recipe(), seed=0, epochs=0)
    pruned = Prune(removed=0.5).apply(varied.model, context).model
    (series, lengths), _ = next(varied.selection.batches(8))
    with torch.no_grad():
        together = forward(pruned, (series, lengths))
        for row, length in enumerate(lengths.tolist()):
            alone = forward(pruned, (series[row : row + 1, :, :length], lengths[row : row + 1]))
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-3, atol=1e-4)


def test_controls_and_their_margin_by_hand() -> None:
    targets = np.tile([0.0, 2.0], 200)
    found = controls.Predictions(
        {"mean of train": np.full(400, 1.0), "persistence": 2 - targets, "original": targets + 0.5}, targets
    )
    best, less = controls.margin(found, block=10)
    assert best == "mean of train"
    assert (less.value, less.low, less.high) == (50.0, 50.0, 50.0)
    table = list(controls.rows(found, block=10))
    assert [row[0] for row in table] == ["mean of train", "persistence", "original"]
    assert table[0][1:4] == ["1", "1", "1"]
    assert float(str(table[2][7])) == pytest.approx(1 - 0.25)
