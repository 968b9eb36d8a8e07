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
        pipeline: Pipeline with its recipe.
        sha256: SHA-256 of the stored file.
        convolutions: Layout of its one-dimensional convolutions.
        stopped: Where a rung ended the training; None where none did.
    """

    pipeline: Pipeline
    sha256: str
    convolutions: str
    stopped: EarlyStop | None

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], operations: Sequence[type[Operation]]) -> Blueprint:
        """The blueprint of a trial's file.

        Args:
            evaluation: Record of the trial's evaluation (``StudyRecord.evaluation``).
            operations: Operations that its pipeline may hold.
        """
        stopped = evaluation["stopped"]
        return cls(
            Pipeline.from_dict(evaluation["pipeline"], operations),
            evaluation["artifact"]["sha256"],
            evaluation["lowering"]["convolutions"] or CONV1D,
            EarlyStop(**stopped) if stopped else None,
        )


@dataclasses.dataclass(frozen=True)
class Retraining:
    """One pipeline built with one other seed.

    Attributes:
        seed: Seed of the build.
        path: Path of the file; None where there is none.
        failure: Why there is no file.
    """

    seed: int
    path: Path | None = None
    failure: str | None = None


def retrain(
    blueprints: Mapping[int, Blueprint], evaluator: Evaluator, count: int, progress: Callable[[int], None]
) -> dict[int, tuple[Retraining, ...]]:
    """Build each pipeline with the ``count`` seeds that follow the search's own, nothing from the cache.

    A pipeline that does not train, and whose first file is byte by byte the stored one, does not depend on
    the seed: it is built once.

    Args:
        blueprints: Blueprints by trial.
        evaluator: Evaluator of the study; its seed is the one to stay away from.
        count: Number of seeds.
        progress: Called with the number of builds done.
    """
    retrainings = {}
    done = 0
    for trial, blueprint in blueprints.items():
        runs: list[Retraining] = []
        trains = any(node.kind == "training" for node in blueprint.pipeline.body)
        for seed in range(evaluator.seed + 1, evaluator.seed + 1 + count):
            cold = dataclasses.replace(evaluator, seed=seed, cache=None)
            try:
                artifact = cold.build(blueprint.pipeline, blueprint.convolutions, blueprint.stopped)
            except TrialError as error:
                runs.append(Retraining(seed, failure=f"{type(error).__name__}: {error}"))
                continue
            path = artifact.path.rename(evaluator.folder / f"trial-{trial}-seed-{seed}.onnx")
            runs.append(Retraining(seed, path))
            if not trains and artifact.sha256 == blueprint.sha256:
                break
        retrainings[trial] = tuple(runs)
        done += count
        progress(done)
    return retrainings
