"""Measuring given pipelines without a search."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from petra_optuna.evaluation import Budget, Evaluation, Evaluator, PrefixCache
from petra_optuna.measurement import DeviceProfile, MeasuringProcess, ShapeMeasurer
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.pipeline import Pipeline
from petra_optuna.study.baseline import lower_baseline
from petra_optuna.tasks import Task
from studies import script

HEADER = (
    *("pipeline", "selection, %", "test, %", "lost on test, points", "size, MB", "times smaller"),
    *("times as fast at batch 1", "times as fast at batch 64"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One pipeline against the original in ONNX Runtime FP32.

    Attributes:
        name: Name of the pipeline in the table.
        evaluation: What a trial would store.
        test: The metric on the test split.
        lost: The original's metric on the test split minus this one.
        smaller: The original's bytes over this file's.
        faster: Times as fast as the original at the profile's latency and throughput batch.
    """

    name: str
    evaluation: Evaluation
    test: float
    lost: float
    smaller: float
    faster: tuple[float, float]

    def cells(self, metric: str) -> list[str]:
        """The row under ``HEADER``; the metric is a share, shown in percent."""
        values = self.evaluation.values
        qualities = (f"{100 * values[metric]:.2f}", f"{100 * self.test:.2f}", f"{100 * self.lost:+.2f}")
        size = (f"{values['size_bytes'] / 1e6:.2f}", f"{self.smaller:.2f}")
        return [self.name, *qualities, *size, *(f"{factor:.2f}" for factor in self.faster)]


def measure_pipelines(
    task: Task, pipelines: Mapping[str, Pipeline], budget: Budget, *, seed: int = 0, cache: Path | None = None
) -> Iterator[Row]:
    """Evaluate each pipeline as a trial would, and on the test split besides.

    Args:
        task: A task with a test split.
        pipelines: Pipelines by the name that the table shows.
        budget: Budget of each pipeline.
        seed: Seed of every node.
        cache: Folder of prefixes, so that a second run goes on where the first one ended.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, original = Path(name), Path(name, "baseline.onnx")
        size_bytes = lower_baseline(task, DeviceProfile(), original)[0].artifact.size_bytes
        test = script.quality_on_test(original, task)
        with MeasuringProcess(DeviceProfile(), original, to_feeds(task.example)) as process:
            evaluator = Evaluator(
                task=task,
                measurer=ShapeMeasurer(process, process.measure_baseline()),
                folder=folder,
                budget=budget,
                seed=seed,
                cache=PrefixCache(cache) if cache else None,
            )
            for label, pipeline in pipelines.items():
                evaluation = evaluator.evaluate(pipeline)
                quality = script.quality_on_test(evaluation.artifact.path, task)
                measured = evaluation.measured.narrowest
                yield Row(
                    label,
                    evaluation,
                    test=quality,
                    lost=test - quality,
                    smaller=size_bytes / evaluation.artifact.size_bytes,
                    faster=(1 / measured.latency.ratio, 1 / measured.throughput[0].ratio),
                )
