"""Which layout of one-dimensional convolutions ships, with a measurer that says what it is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
import torch
from support.loaders import apart
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import Artifact
from petra_optuna.errors import MeasurementFailed
from petra_optuna.evaluation import Evaluator, Limits, LoweredModel, Shipment, quality_of, shipping
from petra_optuna.measurement import Baseline, FileMeasurement, Measurement, ShapeMeasurement, ShapeMeasurer
from petra_optuna.operations import QuantizeStatic
from petra_optuna.pipeline import Pipeline
from petra_optuna.tasks import Task

BLANK = Measurement(1.0, 1.0, 1.0, 2, 1, 1, 1, 1.0, 1.0, 0.0, 1.0, 1.0)


SCALE = Baseline(10.0, {1: 100.0})


def _measured(latency: float, throughput: float) -> FileMeasurement:
    return FileMeasurement(
        dataclasses.replace(BLANK, ratio=latency), (dataclasses.replace(BLANK, ratio=throughput),)
    )


def _ranks(path: Path) -> set[int]:
    graph = onnx.load(path).graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    makers = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {ranks[makers.get(node.input[1], node.input[1])] for node in graph.node if node.op_type == "Conv"}


class ByForm:
    """Ratios by the rank of a file's convolutions."""

    def __init__(self, images: tuple[float, float] | None, series: tuple[float, float] = (1.0, 1.0)) -> None:
        self.ratios = {3: series, 4: images}

    def measure(self, path: Path) -> FileMeasurement:
        (rank,) = _ranks(path)
        found = self.ratios[rank]
        if found is None:
            raise MeasurementFailed("the runtime died")
        return _measured(*found)


@pytest.fixture(scope="module")
def series_task() -> Task:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(96, 3, 16), torch.arange(96) % 3)
    model = nn.Sequential(nn.Conv1d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 16, 5), nn.Flatten())
    model.append(nn.Linear(192, 3))
    loader = DataLoader(data, batch_size=32)
    return Task.from_loaders(model.eval(), loader, apart(loader), metric="accuracy")


def _evaluator(task: Task, folder: Path, measurer: ByForm) -> Evaluator:
    return Evaluator(task, ShapeMeasurer(measurer, SCALE), folder)


@pytest.mark.parametrize("nodes", [(), (QuantizeStatic(),)], ids=["float", "int8"])
def test_the_faster_form_ships_with_its_own_values(
    series_task: Task, tmp_path: Path, nodes: tuple[QuantizeStatic, ...]
) -> None:
    for number, (images, rank) in enumerate((((0.6, 0.7), 4), ((1.2, 1.3), 3))):
        folder = tmp_path / str(number)
        folder.mkdir()
        evaluated = _evaluator(series_task, folder, ByForm(images)).evaluate(Pipeline(nodes))
        path = evaluated.artifact.path
        assert _ranks(path) == {rank}
        assert list(folder.iterdir()) == [path]
        shipped = "2d" if rank == 4 else "1d"
        assert evaluated.artifact.lowering["convolutions"] == shipped
        ratio = images if rank == 4 else (1.0, 1.0)
        assert evaluated.values["latency_ms"] == pytest.approx(10 * ratio[0])
        assert evaluated.values["throughput_per_s"] == pytest.approx(100 / ratio[1])
        assert evaluated.values["size_bytes"] == path.stat().st_size
        assert evaluated.values["accuracy"] == quality_of(path, series_task, series_task.selection)
        record = evaluated.to_dict()["convolutions"]
        assert record["shipped"] == shipped
        assert record["values"]["2d"]["latency_ms"] == pytest.approx(10 * images[0])
        assert record["values"]["1d"]["throughput_per_s"] == 100.0


def test_build_gives_the_file_of_the_form_that_it_is_told(series_task: Task, tmp_path: Path) -> None:
    evaluator = _evaluator(series_task, tmp_path, ByForm((0.5, 0.5)))
    shipped = evaluator.evaluate(Pipeline((QuantizeStatic(),))).artifact.sha256
    assert evaluator.build(Pipeline((QuantizeStatic(),)), "2d").sha256 == shipped
    assert evaluator.build(Pipeline((QuantizeStatic(),))).sha256 != shipped


def test_a_repaired_file_is_repaired_in_both_forms(
    series_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "quality_of", lambda path, *_: float("repaired" in path.name))
    monkeypatch.setattr(shipping, "quality_in_torch", lambda *_: 1.0)
    unit = dataclasses.replace(
        _evaluator(series_task, tmp_path, ByForm((0.5, 0.5))),
        baseline_quality=1.0,
        limits=Limits(quality_drop=0.5),
    )
    repaired = unit.evaluate(Pipeline((QuantizeStatic(),)))
    assert repaired.repair is not None
    assert repaired.repair.shipped
    assert repaired.values["accuracy"] == 1.0
    assert _ranks(repaired.artifact.path) == {4}
    left = [item["name"] for item in repaired.artifact.lowering["conversion"]["left_float"]]
    assert sorted(left) == sorted(repaired.repair.in_float) != []
    assert unit.build(Pipeline((QuantizeStatic(),)), "2d").sha256 == repaired.artifact.sha256


RULE = {
    "faster in both": ((0.9, 0.9), "2d"),
    "a tie": ((0.98, 0.98), "1d"),
    "slower": ((1.1, 1.0), "1d"),
    "faster by more than slower": ((0.7, 1.1), "2d"),
    "slower by more than faster": ((0.9, 1.3), "1d"),
}


@pytest.mark.parametrize("case", RULE)
def test_the_form_of_the_smaller_mean_time_ships_beyond_a_tie(
    series_task: Task, tmp_path: Path, case: str
) -> None:
    ratios, shipped = RULE[case]
    first, second = (_file(tmp_path / name, "1d") for name in ("one.onnx", "two.onnx"))
    table = Table({first.artifact.path: _measured(1.0, 1.0), second.artifact.path: _measured(*ratios)})
    taken, values, layouts = _prepared(series_task, second).choose_layout(first, table)
    assert layouts is not None
    assert layouts.shipped == shipped
    assert taken is (second if shipped == "2d" else first)
    assert values.narrowest is table.measurements[taken.artifact.path]
    assert list(tmp_path.iterdir()) == [taken.artifact.path]


def test_a_form_that_fails_does_not_ship_and_the_record_says_why(series_task: Task, tmp_path: Path) -> None:
    evaluated = _evaluator(series_task, tmp_path, ByForm(None)).evaluate(Pipeline())
    assert _ranks(evaluated.artifact.path) == {3}
    assert evaluated.convolutions is not None
    assert evaluated.convolutions.failure == "MeasurementFailed: the runtime died"
    assert list(tmp_path.iterdir()) == [evaluated.artifact.path]


def test_a_file_without_series_is_measured_once(series_task: Task, tmp_path: Path) -> None:
    first = _file(tmp_path / "one.onnx", None)
    table = Table({first.artifact.path: _measured(1.0, 1.0)})
    taken, _, layouts = _prepared(series_task, None).choose_layout(first, table)
    assert taken is first
    assert layouts is None


@dataclasses.dataclass(frozen=True)
class Table:
    """A measurer of shapes that reads what it answers in a table."""

    measurements: dict[Path, FileMeasurement]

    def measure(self, file: Path) -> ShapeMeasurement:
        return ShapeMeasurement(file.name, {"one": self.measurements[file]}, 1, SCALE)


@dataclasses.dataclass(frozen=True)
class Prepared(Shipment):
    """Lowers to a file that is there; fails the test where there is none."""

    file: LoweredModel | None = None

    def lower(self, layout: str = "1d", *, keep_float: bool = False) -> LoweredModel:
        assert self.file is not None, "made another file"
        return self.file


def _prepared(task: Task, file: LoweredModel | None) -> Prepared:
    return Prepared(task.model, task, Path("unused.onnx"), file=file)


def _file(path: Path, form: str | None) -> LoweredModel:
    path.write_bytes(b"file")
    return LoweredModel(Artifact(path, 4, "", {"convolutions": form}), 0.5)
