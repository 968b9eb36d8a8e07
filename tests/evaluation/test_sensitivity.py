"""Curves of layers: a model in which it is known what each layer bears."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from petra_optuna.evaluation import (
    Curve,
    PrefixCache,
    priors_from_sensitivity,
    sensitivity,
    sensitivity_of,
)
from petra_optuna.evaluation.sensitivity import (
    Point,
    Sensitivity,
    affordable_extent,
    measure_sensitivity,
    spread_evenly,
)
from petra_optuna.operations import DropBlocks, Prune, Train, default_space
from petra_optuna.pipeline import FieldPrior, SearchSpace
from petra_optuna.tasks import Split, Task

CLASSES = 16


class Planted(nn.Module):
    """The largest of 16 inputs wins.

    ``fragile`` needs every channel, ``robust`` has each of them four times, nothing reads ``unread``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fragile, self.after = nn.Linear(16, 16), nn.Linear(16, 16)
        self.robust, self.merge = nn.Linear(16, 64), nn.Linear(64, 16)
        self.unread, self.closed = nn.Linear(16, 32), nn.Linear(32, 16)
        with torch.no_grad():
            for layer in (self.fragile, self.after, self.robust, self.merge):
                layer.bias.zero_()
            self.fragile.weight.copy_(torch.eye(16))
            self.after.weight.copy_(torch.eye(16))
            self.robust.weight.copy_(torch.eye(16).repeat(4, 1))
            self.merge.weight.copy_(torch.eye(16).repeat(1, 4) / 4)
            self.closed.weight.zero_()
            self.closed.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        kept: Tensor = self.after(self.fragile(inputs))
        return self.merge(self.robust(kept)) + self.closed(self.unread(kept))


class Sealed(Dataset[tuple[Tensor, Tensor]]):
    """Raises when it is read."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        raise AssertionError("only the calibration split may be read")


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    inputs = torch.randn(800, 16)
    loader = DataLoader(TensorDataset(inputs, inputs.argmax(1)), batch_size=50)
    made = Task.from_loaders(Planted(), loader, apart(loader), metric="accuracy", name="planted")
    example = made.example  # inputs of the selection split, which a model is traced with
    sealed = dataclasses.replace(made, selection=Split(Sealed()), fingerprint="of the sealed task")
    vars(sealed)["example"] = example
    return sealed


@pytest.fixture(scope="module")
def measured(task: Task) -> Sensitivity:
    return measure_sensitivity(task)


def _curve(measured: Sensitivity, operation: str, layer: str) -> Curve:
    return next(curve for curve in measured.of(operation) if curve.layer == layer)


def test_a_curve_starts_at_the_original_and_goes_on_by_strength(task: Task, measured: Sensitivity) -> None:
    assert {curve.operation for curve in measured.curves} >= {"prune", "low_rank"}
    for curve in measured.curves:
        assert (curve.points[0].strength, curve.points[0].quality) == (0.0, 1.0)  # the planted model is right
        strengths = [point.strength for point in curve.points]
        assert strengths == sorted(set(strengths))
        assert len(strengths) > 1


def test_what_nothing_reads_loses_nothing(measured: Sensitivity) -> None:
    for operation in ("prune", "low_rank"):
        assert {point.quality for point in _curve(measured, operation, "unread").points} == {1.0}


def test_the_fragile_layer_is_found(measured: Sensitivity) -> None:
    half = {
        curve.layer: next(point.quality for point in curve.points if point.strength == 0.5)
        for curve in measured.of("prune")
    }
    assert half["fragile"] < 0.7
    assert half["robust"] == 1.0
    assert min(half, key=half.__getitem__) in ("fragile", "after")


def test_the_model_stays_as_it_was(task: Task, measured: Sensitivity) -> None:
    assert all(
        torch.equal(mine, planted)
        for mine, planted in zip(task.model.parameters(), Planted().parameters(), strict=True)
        if mine.shape[0] == 16 and mine.dim() == 2 and mine.shape[1] == 16
    )


def test_what_was_measured_once_is_read_and_a_damaged_entry_heals(
    task: Task, measured: Sensitivity, tmp_path: Path
) -> None:
    calls: list[Task] = []

    def measure(given: Task) -> Sensitivity:
        calls.append(given)
        return measured

    cache = PrefixCache(tmp_path)
    assert sensitivity_of(task, cache, measure) == sensitivity_of(task, cache, measure) == measured
    assert len(calls) == 1
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert sensitivity_of(task, cache, measure) == sensitivity_of(task, cache, measure) == measured
    assert len(calls) == 2
    sensitivity_of(dataclasses.replace(task, fingerprint="another model"), cache, measure)
    assert len(calls) == 3


def test_measuring_twice_gives_the_same(task: Task, measured: Sensitivity) -> None:
    assert measure_sensitivity(task) == measured


@pytest.mark.parametrize("macs", [1.0, 1e5, 1e7, 1e9, 1e12])
def test_the_cost_is_bounded(macs: float) -> None:
    found = {"prune": 12, "low_rank": 20, "drop_blocks": 8}
    count, samples = affordable_extent(found, macs)
    cuts = 3 * min(count, 12) + 3 * min(count, 20) + min(count, 8)
    dear = (count, samples) == (1, sensitivity.MIN_SAMPLES)
    assert dear or macs * cuts * (samples + min(samples, 128)) <= sensitivity.MAX_MACS
    assert count <= sensitivity.MAX_LAYERS
    assert samples <= sensitivity.SAMPLES
    assert spread_evenly(range(12), 4) == [0, 4, 7, 11]


SPACE = default_space()


def _made(*layers: tuple[int, list[float]], direction: str = "maximize") -> Sensitivity:
    """Curves of pruning by size and losses at strengths 0.25, 0.5 and 0.75."""
    sign = 1 if direction == "maximize" else -1
    strengths = (0.25, 0.5, 0.75)
    curves = tuple(
        Curve(
            "prune",
            f"layer {place}",
            size,
            (
                Point(0.0, 0.8, {}),
                *(
                    Point(strength, 0.8 * (1 - sign * loss), {"removed": strength})
                    for strength, loss in zip(strengths, losses, strict=True)
                ),
            ),
        )
        for place, (size, losses) in enumerate(layers)
    )
    counts = {"prune": len(layers), "low_rank": 0, "drop_blocks": 0}
    return Sensitivity("made", direction, 256, curves, counts, {})


def _ratios(made: Sensitivity) -> dict[Any, float]:
    return {start.when["scope"]: start.value for start in priors_from_sensitivity(made, SPACE)}


def test_a_model_that_loses_nothing_begins_at_the_strongest_cut_that_was_tried() -> None:
    assert _ratios(_made((64, [0, 0, 0]), (8, [0, 0, 0]))) == {"local": 0.75, "global": 0.75}


def test_a_model_that_loses_everything_begins_at_the_mildest_cut() -> None:
    assert _ratios(_made((64, [1, 1, 1]), (8, [1, 1, 1]))) == {"local": 0.1, "global": 0.1}


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_losses_add_up(direction: str) -> None:
    """At 0.05 of the original's quality: one layer bears 0.5, two of the kind half as much."""
    one, two = [(64, [0.025, 0.05, 1.0])], [(64, [0.025, 0.05, 1.0])] * 2
    assert _ratios(_made(*one, direction=direction))["local"] == pytest.approx(0.5, abs=0.01)
    assert _ratios(_made(*two, direction=direction))["local"] == pytest.approx(0.25, abs=0.01)


def test_where_layers_compete_a_small_fragile_one_holds_nobody_back() -> None:
    found = _ratios(_made((64, [0, 0, 0]), (8, [0.5, 1.0, 1.0])))
    assert found["local"] < 0.11
    assert 0.6 < found["global"] < 0.75


def test_where_layers_compete_the_large_one_gives_first_at_equal_losses() -> None:
    losses = [0.04, 0.08, 0.12]
    assert _ratios(_made((10, losses), (100, losses)))["global"] > 0.2


def test_a_better_result_of_a_stronger_cut_is_no_invitation() -> None:
    assert _ratios(_made((64, [1.0, 0.0, 0.0])))["local"] == 0.1


def test_starts_are_in_range_and_of_operations_of_the_space(measured: Sensitivity) -> None:
    starts = priors_from_sensitivity(measured, SPACE)
    assert {(start.operation, start.field) for start in starts} >= {
        ("prune", "removed"),
        ("low_rank", "kept_energy"),
        ("low_rank", "kept_singular_values"),
        ("low_rank", "kept_weights"),
    }
    for start in starts:
        SPACE.operation(start.operation)(**{start.field: start.value, **start.when})
    assert priors_from_sensitivity(measured, SearchSpace((Train,))) == ()
    assert {start.operation for start in priors_from_sensitivity(measured, SearchSpace((Train, Prune)))} == {
        "prune"
    }
    assert [FieldPrior(**start.to_dict()) for start in starts] == list(starts)


def test_harmless_blocks_leave_first() -> None:
    def made(*losses: float) -> list[FieldPrior]:
        curves = tuple(
            Curve("drop_blocks", str(place), 10, (Point(0.0, 1.0, {}), Point(1.0, 1.0 - loss, {})))
            for place, loss in enumerate(losses)
        )
        layers = {"prune": 0, "low_rank": 0, "drop_blocks": len(losses)}
        return list(priors_from_sensitivity(Sensitivity("made", "maximize", 9, curves, layers, {}), SPACE))

    assert made(0.02, 0.9, 0.02, 0.9, 0.9) == [FieldPrior(DropBlocks.name, "removed", 0.4)]
    assert made(0.9, 0.9)[0].value == 0.1

    assert np.isclose(made(0.0, 0.0)[0].value, 0.6)


def test_every_curve_of_a_real_network_is_one(tiny_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batch norms, shortcuts and blocks."""
    monkeypatch.setattr(sensitivity, "STRENGTHS", (0.5,))
    found = measure_sensitivity(tiny_task)
    assert {curve.operation for curve in found.curves} == {"prune", "low_rank", "drop_blocks"}
    assert not found.left_out
    assert found.samples == 256
    assert Sensitivity.from_dict(found.to_dict()) == found
