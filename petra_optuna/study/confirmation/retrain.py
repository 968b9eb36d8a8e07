"""The pipelines of a front built again from scratch with other seeds: is their quality luck?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from petra_optuna.errors import TrialError
from petra_optuna.evaluation import Evaluator, Stopped
from petra_optuna.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Retrained:
    """One pipeline under one other seed: its file, or why there is none."""

    seed: int
    path: Path | None = None
    failure: str | None = None


def retrained(
    pipelines: Mapping[int, Pipeline],
    digests: Mapping[int, str],
    forms: Mapping[int, str],
    stops: Mapping[int, Stopped | None],
    evaluator: Evaluator,
    count: int,
    progress: Callable[[int], None],
) -> dict[int, tuple[Retrained, ...]]:
    """Build each pipeline with the ``count`` seeds that follow the search's own, nothing from the cache.

    A pipeline that does not train and whose first file is, byte by byte, the one stored does not depend on
    the seed: it is built once.

    Args:
        pipelines: By trial.
        digests: SHA-256 of each trial's stored file.
        forms: Of the one-dimensional convolutions of each trial's file.
        stops: Where a rung ended each trial's training; None where none did.
        evaluator: Of the study; its seed is the one to stay away from.
        count: Seeds.
        progress: Called with the number of builds done.
    """
    found = {}
    done = 0
    for trial, pipeline in pipelines.items():
        runs: list[Retrained] = []
        trains = any(node.kind == "training" for node in pipeline.body)
        for seed in range(evaluator.seed + 1, evaluator.seed + 1 + count):
            cold = dataclasses.replace(evaluator, seed=seed, cache=None)
            try:
                artifact = cold.build(pipeline, forms[trial], stops[trial])
            except TrialError as error:
                runs.append(Retrained(seed, failure=f"{type(error).__name__}: {error}"))
                continue
            path = artifact.path.rename(evaluator.folder / f"trial-{trial}-seed-{seed}.onnx")
            runs.append(Retrained(seed, path))
            if not trains and artifact.sha256 == digests[trial]:
                break
        found[trial] = tuple(runs)
        done += count
        progress(done)
    return found
