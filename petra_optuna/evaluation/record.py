"""What is known of a pipeline after its evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from petra_optuna.deploy import Artifact
from petra_optuna.evaluation.preview import Preview
from petra_optuna.evaluation.rungs import EarlyStop
from petra_optuna.evaluation.shipping import ConvLayouts, Repair
from petra_optuna.measurement import ShapeMeasurement
from petra_optuna.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is known of one pipeline: its values, its file, and how they came about.

    Attributes:
        pipeline: Pipeline in canonical form.
        values: The task's metric, and each of ``EFFICIENCY_METRICS`` that this machine can measure, by name.
        nodes: Report of each node of the body, JSON-ready.
        artifact: The file that ships.
        checkpoint: The model before the conversion as bytes (``checkpoint.from_bytes``).
        measured: Measurements of the file and of others of its shape.
        preview: Predictions that were made before the training; None where nodes would have
            been applied twice for them and no limit needs them.
        reused_nodes: Number of nodes whose result came from the cache.
        repair: What was done about a loss of quality over the limit; None where there was none.
        convolutions: How both layouts compare; None without one-dimensional convolutions.
        stopped: Where a rung ended the training; None where none did.
    """

    pipeline: Pipeline
    values: Mapping[str, float]
    nodes: tuple[Mapping[str, Any], ...]
    artifact: Artifact
    checkpoint: bytes
    measured: ShapeMeasurement
    preview: Preview | None
    reused_nodes: int
    repair: Repair | None = None
    convolutions: ConvLayouts | None = None
    stopped: EarlyStop | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form without the file and the weights."""
        measured = self.measured.narrowest
        return {
            "pipeline": self.pipeline.to_dict(),
            "notation": self.pipeline.notation,
            "description": self.pipeline.describe(),
            "hash": self.pipeline.hash,
            "values": dict(self.values),
            "nodes": [dict(report) for report in self.nodes],
            "artifact": {"sha256": self.artifact.sha256, "size_bytes": self.artifact.size_bytes},
            "lowering": self.artifact.lowering,
            "measurements": measured.to_dict(),
            "best_throughput_batch": self.measured.baseline.best(measured).batch,
            "recommendation": self.measured.recommendation,
            "readings": {"known": len(self.measured.readings), "taken": self.measured.taken},
            "preview": dataclasses.asdict(self.preview) if self.preview else None,
            "reused_nodes": self.reused_nodes,
            "repair": self.repair.to_dict() if self.repair else None,
            "convolutions": self.convolutions.to_dict() if self.convolutions else None,
            "stopped": dataclasses.asdict(self.stopped) if self.stopped else None,
        }
