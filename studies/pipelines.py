"""Measuring given pipelines, without a search: what the experiments on operations share."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from petra_optuna.evaluation import Budget, Evaluation, Evaluator, PrefixCache, quality_of
from petra_optuna.measurement import DeviceProfile, MeasuringProcess
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.pipeline import Pipeline
from petra_optuna.study.baseline import lower_baseline
from petra_optuna.tasks import Task, open_once

HEADER = (
    "| pipeline | selection | test | lost on test | size | smaller | latency, batch 1 | throughput, 64 |"
    "\n|---|---|---|---|---|---|---|---|"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One pipeline against the original in ONNX Runtime FP32.

    Attributes:
        name: Of the pipeline in the table.
        evaluation: As a trial stores it.
        test: The metric on the test split.
        lost: The original's metric on the test split minus this one.
        smaller: The original's bytes over this file's.
        faster: Times as fast at the profile's latency and throughput batch.
    """

    name: str
    evaluation: Evaluation
    test: float
    lost: float
    smaller: float
    faster: tuple[float, float]

    def markdown(self, metric: str) -> str:
        """A line under ``HEADER``; the metric is a share, shown in percent."""
        values = self.evaluation.values
        return (
            f"| {self.name} | {100 * values[metric]:.2f} | {100 * self.test:.2f} | {100 * self.lost:+.2f} | "
            f"{values['size_bytes'] / 1e6:.2f} MB | {self.smaller:.2f}x | {self.faster[0]:.2f}x | "
            f"{self.faster[1]:.2f}x |"
        )


def measure_pipelines(
    task: Task, pipelines: Mapping[str, Pipeline], budget: Budget, *, seed: int = 0, cache: Path | None = None
) -> Iterator[Row]:
    """Evaluate each pipeline as a trial would, and on the test split besides.

    Args:
        task: With a test split.
        pipelines: By the name that the table shows.
        budget: Of each pipeline.
        seed: Of every node.
        cache: Folder of prefixes, so that a second run goes on where the first one ended.
    """
    assert task.test is not None
    with tempfile.TemporaryDirectory() as name:
        folder, original = Path(name), Path(name, "baseline.onnx")
        size_bytes = lower_baseline(task, DeviceProfile(), original)[0].artifact.size_bytes
        test = quality_of(original, task, open_once(task.test), torch.get_num_threads())
        with MeasuringProcess(DeviceProfile(), original, to_feeds(task.example)) as process:
            evaluator = Evaluator(
                task=task,
                measurer=process,
                baseline=process.measure_baseline(),
                folder=folder,
                budget=budget,
                seed=seed,
                cache=PrefixCache(cache) if cache else None,
            )
            for label, pipeline in pipelines.items():
                evaluation = evaluator.evaluate(pipeline)
                found = quality_of(
                    evaluation.artifact.path, task, open_once(task.test), torch.get_num_threads()
                )
                measured = evaluation.measured
                yield Row(
                    label,
                    evaluation,
                    test=found,
                    lost=test - found,
                    smaller=size_bytes / evaluation.artifact.size_bytes,
                    faster=(1 / measured.latency.ratio, 1 / measured.throughput[0].ratio),
                )
