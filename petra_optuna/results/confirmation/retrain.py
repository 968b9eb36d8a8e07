"""The pipelines of a front built again from scratch with other seeds: is their quality luck?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from petra_optuna.deploy import CONV1D
from petra_optuna.errors import TrialError
from petra_optuna.evaluation import EarlyStop, Evaluator
from petra_optuna.pipeline import Operation, Pipeline


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """What a trial's file is built from.

    Attributes:
        pipeline: With its recipe.
        sha256: Of the stored file.
        convolutions: Form of the one-dimensional ones in it.
        stopped: Where a rung ended the training; None where none did.
    """

    pipeline: Pipeline
    sha256: str
    convolutions: str
    stopped: EarlyStop | None

    @classmethod
    def of(cls, record: Mapping[str, Any], operations: Sequence[type[Operation]]) -> Blueprint:
        """From an evaluation's stored record, whose pipeline is of these operations."""
        stopped = record.get("stopped")
        return cls(
            Pipeline.from_dict(record["pipeline"], operations),
            record["artifact"]["sha256"],
            record["lowering"].get("convolutions") or CONV1D,
            EarlyStop(**stopped) if stopped else None,
        )


@dataclasses.dataclass(frozen=True)
class Retrained:
    """One pipeline under one other seed: its file, or why there is none."""

    seed: int
    path: Path | None = None
    failure: str | None = None


def retrained(
    blueprints: Mapping[int, Blueprint], evaluator: Evaluator, count: int, progress: Callable[[int], None]
) -> dict[int, tuple[Retrained, ...]]:
    """Build each pipeline with the ``count`` seeds that follow the search's own, nothing from the cache.

    A pipeline that does not train and whose first file is, byte by byte, the one stored does not depend on
    the seed: it is built once.

    Args:
        blueprints: By trial.
        evaluator: Of the study; its seed is the one to stay away from.
        count: Seeds.
        progress: Called with the number of builds done.
    """
    found = {}
    done = 0
    for trial, given in blueprints.items():
        runs: list[Retrained] = []
        trains = any(node.kind == "training" for node in given.pipeline.body)
        for seed in range(evaluator.seed + 1, evaluator.seed + 1 + count):
            cold = dataclasses.replace(evaluator, seed=seed, cache=None)
            try:
                artifact = cold.build(given.pipeline, given.convolutions, given.stopped)
            except TrialError as error:
                runs.append(Retrained(seed, failure=f"{type(error).__name__}: {error}"))
                continue
            path = artifact.path.rename(evaluator.folder / f"trial-{trial}-seed-{seed}.onnx")
            runs.append(Retrained(seed, path))
            if not trains and artifact.sha256 == given.sha256:
                break
        found[trial] = tuple(runs)
        done += count
        progress(done)
    return found
