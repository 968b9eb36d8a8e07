"""How a model's quality falls as one layer alone is cut: once per model, on calibration data, no training.

Cost: three strengths (one for a block), at most ``MAX_LAYERS`` layers for each operation, ``SAMPLES``
samples, and ``MAX_MACS`` multiply-accumulates in all: a large model is read on fewer samples, then in
fewer layers. That is half a minute for ``cifar10``'s ResNet-18 with one thread.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from petra_optuna.errors import MeasurementFailed, OperationFailed, foreign_errors_as
from petra_optuna.evaluation.cache import CacheEntry, PrefixCache
from petra_optuna.evaluation.keys import base_key
from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank import (
    Decomposable,
    decomposable_layers,
    kept_shares,
    reduce_layer,
    shared_names,
    substitute,
)
from petra_optuna.nn.pruning import drop_blocks, find_replaceable, group_widths, magnitude_scores, prune_group
from petra_optuna.operations import DropBlocks, LowRank, Prune
from petra_optuna.pipeline.nodes import KEPT_BY_RULE
from petra_optuna.tasks import Task
from petra_optuna.tasks.calibration import calibration_batches
from petra_optuna.tasks.outputs import Outputs, joined_targets

STRENGTHS = (0.25, 0.5, 0.75)
MAX_LAYERS = 6
SAMPLES, MIN_SAMPLES = 256, 64
NORM_SAMPLES = 128
"""Samples, of those above, on which batch norms are measured again."""
MAX_MACS = 1e12
BATCH = 64

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Point:
    """One cut of a layer, and the quality that it leaves.

    Attributes:
        strength: Share of what can leave the layer that does leave: of its channels, of the largest rank
            that saves weights, or of the block, which leaves whole.
        quality: The task's metric with this cut alone.
        fields: Values of the operation's fields that cut this layer so, by field.
    """

    strength: float
    quality: float
    fields: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One layer's quality by strength.

    Attributes:
        operation: Name of the operation that cuts it.
        layer: Name of the layer; for a group of coupled channels the name of its first layer.
        size: Weight of the layer among the others: its channels or its parameters.
        points: Points in the order of strength; the first is the uncut original.
    """

    operation: str
    layer: str
    size: int
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """The curves of a model.

    Attributes:
        metric: Name of the task's metric.
        direction: Whether more of it is better.
        samples: Number of samples of the calibration split that all qualities were computed on.
        curves: Curves of each operation in the order of the model.
        layers: How many layers each operation could cut; curves may be fewer, spread evenly over them.
        left_out: Why a layer that was to be cut has no curve, by operation and layer.
    """

    metric: str
    direction: str
    samples: int
    curves: tuple[Curve, ...]
    layers: Mapping[str, int]
    left_out: Mapping[str, str]

    def of(self, operation: str) -> tuple[Curve, ...]:
        """The curves of one operation."""
        return tuple(curve for curve in self.curves if curve.operation == operation)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Inverse of ``to_dict``."""
        curves = tuple(
            Curve(**{**curve, "points": tuple(Point(**point) for point in curve["points"])})
            for curve in data["curves"]
        )
        return cls(**{**data, "curves": curves})


def measure_sensitivity(task: Task) -> Sensitivity:
    """Cut each layer alone and read the metric on calibration data, batch norms measured again.

    Channels leave by the default criterion. Recurrent layers have no low-rank curve: their matrices do
    not compare with a layer's one.
    """
    model = private_copy(task.model).eval()
    model.requires_grad_(True)  # the channels are traced by autograd
    example, (inputs, _) = task.example, next(calibration_batches(task.calibration, 32, BATCH))
    cuts = {
        Prune.name: _prunings(model, example),
        LowRank.name: _factorings(model, inputs),
        DropBlocks.name: _drops(model, inputs),
    }
    macs = count_macs(model, example)
    layers = {operation: len(candidates) for operation, candidates in cuts.items()}
    max_layers, samples = affordable_extent(layers, macs)
    data = _Data.of(task, samples)
    original = Point(0.0, data.quality(model), {})
    curves, left_out = [], {}
    for operation, candidates in cuts.items():
        for cut in spread_evenly(candidates, max_layers):
            try:
                points = [
                    Point(strength, data.quality_anew(cut_model), fields)
                    for strength, fields, cut_model in cut.versions()
                ]
            except (OperationFailed, MeasurementFailed) as error:
                left_out[f"{operation} {cut.layer}"] = str(error)
                continue
            if points:
                curves.append(Curve(operation, cut.layer, cut.size, (original, *points)))
            else:
                left_out[f"{operation} {cut.layer}"] = "nothing may leave it at the strengths tried"
    return Sensitivity(task.metric.name, task.metric.direction, data.samples, tuple(curves), layers, left_out)


def sensitivity_of(
    task: Task, cache: PrefixCache, measure: Callable[[Task], Sensitivity] = measure_sensitivity
) -> Sensitivity:
    """The curves of a task's model, from the cache where it has them.

    The key covers what a cached prefix's does: weights, data, code, libraries, threads, instruction set.

    Args:
        task: Task whose model is cut.
        cache: Cache that is read and written.
        measure: Measures the curves that the cache does not hold.

    Raises:
        StudyError: When the cache cannot be written.
    """
    key = hashlib.sha256(f"sensitivity {base_key(task, seed=0)}".encode()).hexdigest()
    entry = cache.get(key)
    if entry is not None:
        return Sensitivity.from_dict(entry.reports[0])
    sensitivity = measure(task)
    cache.put(key, CacheEntry([sensitivity.to_dict()], b""))
    return sensitivity


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A layer that can be cut.

    Attributes:
        layer: Name of the layer.
        size: Weight of the layer among the others (see ``Curve``).
        versions: Yields strength, fields and a copy of the model so cut, for each strength.
    """

    layer: str
    size: int
    versions: Callable[[], Iterator[tuple[float, dict[str, float], nn.Module]]]


def _prunings(model: nn.Module, example: Inputs) -> list[_Cut]:
    weights = magnitude_scores(model, power=2)

    def cut(name: str, channels: int) -> _Cut:
        def versions() -> Iterator[tuple[float, dict[str, float], nn.Module]]:
            before = channels
            for strength in STRENGTHS:
                pruned, width = prune_group(model, example, weights, name, strength)
                if width < before:
                    before, share = width, 1 - width / channels
                    yield share, {"removed": share}, pruned

        return _Cut(name, channels, versions)

    try:
        widths = group_widths(model, example, weights)
    except OperationFailed:  # a model that cannot be traced is not pruned in a search either
        return []
    return [cut(name, channels) for name, channels in widths.items()]


def _factorings(model: nn.Module, inputs: Inputs) -> list[_Cut]:
    shared = shared_names(model)

    def cut(name: str, layer: Decomposable) -> _Cut:
        def versions() -> Iterator[tuple[float, dict[str, float], nn.Module]]:
            for strength in STRENGTHS:
                reduced = reduce_layer(layer, "share", 1 - strength).layer
                if reduced is not None:
                    placed = substitute(private_copy(model), {name: reduced}, inputs)
                    if placed.left_out:
                        raise OperationFailed(placed.left_out[name])
                    kept = kept_shares(layer, 1 - strength)
                    yield strength, {KEPT_BY_RULE[rule]: share for rule, share in kept.items()}, placed.model

        return _Cut(name, count_parameters(layer), versions)

    layers = decomposable_layers(model).items()
    return [
        cut(name, layer) for name, layer in layers if isinstance(layer, Decomposable) and name not in shared
    ]


def _drops(model: nn.Module, inputs: Inputs) -> list[_Cut]:
    def cut(name: str) -> _Cut:
        def versions() -> Iterator[tuple[float, dict[str, float], nn.Module]]:
            shortened = private_copy(model)
            _, failed = drop_blocks(shortened, [name], 1, inputs)
            if failed:
                raise OperationFailed(failed[name])
            yield 1.0, {}, shortened

        return _Cut(name, count_parameters(model.get_submodule(name)), versions)

    return [cut(name) for name in find_replaceable(model, inputs).names]


@dataclasses.dataclass(frozen=True)
class _Data:
    """Batches of the calibration split, the same ones for every cut."""

    task: Task
    batches: tuple[tuple[Inputs, Tensor], ...]

    @classmethod
    def of(cls, task: Task, samples: int) -> _Data:
        size = min(BATCH, max(2, task.samples_per_call))
        return cls(task, tuple(calibration_batches(task.calibration, samples, size)))

    @property
    def samples(self) -> int:
        return sum(len(targets) for _, targets in self.batches)

    def quality_anew(self, model: nn.Module) -> float:
        """The metric once batch norms are measured again, as after each operation."""
        count = -(-NORM_SAMPLES // len(self.batches[0][1]))
        inputs = [inputs for inputs, _ in self.batches[:count]]
        with foreign_errors_as(MeasurementFailed, "the model with this cut"):
            reestimate_batch_norm(model, inputs, self.task.fixed_norms)
        return self.quality(model)

    def quality(self, model: nn.Module) -> float:
        def predict(inputs: Inputs) -> np.ndarray:
            with torch.inference_mode():
                return np.asarray(forward(model, inputs).numpy())

        outputs = Outputs(predict, self.samples)
        with foreign_errors_as(MeasurementFailed, self.task.metric.name):
            for inputs, targets in self.batches:
                outputs.add(inputs, len(targets))
            expected = joined_targets([targets.numpy() for _, targets in self.batches])
            return self.task.score(outputs.joined(), expected)


def affordable_extent(layers: Mapping[str, int], macs: float) -> tuple[int, int]:
    """Layers of each operation, and samples, that cost at most ``MAX_MACS`` where that is possible.

    Args:
        layers: How many layers each operation could cut.
        macs: Multiply-accumulates of the model for one sample.
    """
    count, samples = MAX_LAYERS, SAMPLES

    def cost() -> float:
        cuts = sum(
            min(count, candidates) * (1 if operation == DropBlocks.name else len(STRENGTHS))
            for operation, candidates in layers.items()
        )
        return macs * cuts * (samples + min(samples, NORM_SAMPLES))

    while samples > MIN_SAMPLES and cost() > MAX_MACS:
        samples //= 2
    while count > 1 and cost() > MAX_MACS:
        count -= 1
    return count, samples


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly spread, the first and the last included."""
    if len(items) <= count:
        return list(items)
    return [items[round(index)] for index in np.linspace(0, len(items) - 1, count)]
