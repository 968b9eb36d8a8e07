"""What is known of a pipeline after its evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from petra_optuna.deploy import Artifact
from petra_optuna.evaluation.conv_layouts import ConvLayouts
from petra_optuna.evaluation.preview import Preview
from petra_optuna.evaluation.repair import Repair
from petra_optuna.evaluation.rungs import Stopped
from petra_optuna.measurement import FileMeasurement
from petra_optuna.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is known of one pipeline: its values, its file, and how they came about.

    ``values`` holds the task's metric and every one of ``EFFICIENCY_METRICS`` that this machine can measure.
    ``stopped`` tells where a rung ended the training, if one did.
    """

    pipeline: Pipeline
    values: Mapping[str, float]
    nodes: tuple[Mapping[str, Any], ...]
    artifact: Artifact
    checkpoint: bytes
    measured: FileMeasurement
    best_throughput_batch: int
    preview: Preview
    reused_nodes: int
    repair: Repair | None = None
    convolutions: ConvLayouts | None = None
    stopped: Stopped | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form without the file and the weights."""
        return {
            "pipeline": self.pipeline.to_dict(),
            "notation": self.pipeline.notation,
            "description": self.pipeline.describe(),
            "hash": self.pipeline.hash,
            "values": dict(self.values),
            "nodes": [dict(report) for report in self.nodes],
            "artifact": {"sha256": self.artifact.sha256, "size_bytes": self.artifact.size_bytes},
            "lowering": self.artifact.lowering,
            "measurements": self.measured.to_dict(),
            "best_throughput_batch": self.best_throughput_batch,
            "preview": dataclasses.asdict(self.preview),
            "reused_nodes": self.reused_nodes,
            "repair": self.repair.to_dict() if self.repair else None,
            "convolutions": self.convolutions.to_dict() if self.convolutions else None,
            "stopped": dataclasses.asdict(self.stopped) if self.stopped else None,
        }
