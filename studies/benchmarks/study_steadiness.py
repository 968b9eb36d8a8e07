"""One and the same study on a quiet and on a loaded machine: do its numbers and its front agree?"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from petra_optuna.evaluation import Budget
from petra_optuna.measurement import ShapeStore
from petra_optuna.study import StudyRecord, optimize, resume
from petra_optuna.tasks import build_task

HEADER = (
    "value",
    "median difference, %",
    "largest difference, %",
    "trials failed, quiet",
    "loaded",
    "fronts agree",
)
CONTROLS = 5
MEASURED = ("latency_ms", "throughput_per_s")
_BUDGET = Budget(epochs=1, data_fraction=0.25)


def compare_studies(trials: int, folder: Path, load: AbstractContextManager[None]) -> Iterator[list[object]]:
    """Run a study of the digits, then the same pipelines beside a load; a row for each measured value.

    Both share their trained models, and nothing that was measured.

    Args:
        trials: Trials of each study, the controls included.
        folder: Folder for the databases and caches.
        load: Loads the machine while its block runs.
    """
    quiet = _run(trials, folder / "quiet")
    shutil.copytree(folder / "quiet" / "cache", folder / "loaded" / "cache")
    shutil.rmtree(ShapeStore.in_cache(folder / "loaded" / "cache").folder)
    with load:
        loaded = _run(trials, folder / "loaded", quiet)
    yield from _Pair(quiet, loaded).rows()


def _run(trials: int, folder: Path, like: optuna.Study | None = None) -> optuna.Study:
    """Run a study; of another one's pipelines where that is given."""
    cache, storage = folder / "cache", f"sqlite:///{folder / 'study.db'}"
    cache.mkdir(parents=True, exist_ok=True)
    task = build_task("digits", cache_dir=cache)
    first = trials if like is None else CONTROLS
    study = optimize(
        task, trials=first, storage=storage, name="digits", budget=_BUDGET, cache=cache, train_threads=1
    )
    if like is None:
        return study
    for trial in like.trials[CONTROLS:]:
        study.enqueue_trial(trial.params)
    return resume(task, trials=trials, storage=storage, name="digits")


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two studies of the same pipelines."""

    quiet: optuna.Study
    loaded: optuna.Study

    def rows(self) -> Iterator[list[object]]:
        failed = [
            sum(trial.state == TrialState.FAIL for trial in study.trials)
            for study in (self.quiet, self.loaded)
        ]
        agree = self._fronts_agree()
        for name in MEASURED:
            differences = 100 * np.abs(self._differences(name))
            cells = (f"{np.median(differences):.1f}", f"{differences.max():.1f}")
            yield [name, *cells, *failed, "yes" if agree else "no"]

    def _differences(self, name: str) -> np.ndarray:
        """How far the loaded study's values are from the quiet one's, as shares; of trials that both have."""
        position = (self.quiet.metric_names or []).index(name)
        tables = [_values(study, position) for study in (self.quiet, self.loaded)]
        return np.array(
            [tables[1][number] / tables[0][number] - 1 for number in tables[0] if number in tables[1]]
        )

    def _fronts_agree(self) -> bool:
        """Whether each member of either front is on the other one, or ties with a member of it."""
        shown, covered = zip(*(_front(study) for study in (self.quiet, self.loaded)), strict=True)
        return bool(shown[0] <= covered[1] and shown[1] <= covered[0])


def _values(study: optuna.Study, position: int) -> dict[int, float]:
    measured = StudyRecord(study).measured_values
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    return {trial.number: measured.values(trial)[position] for trial in complete}


def _front(study: optuna.Study) -> tuple[set[int], set[int]]:
    """Numbers of the trials on a front, and of these with those that tie with them."""
    standing = StudyRecord(study).standing
    shown = {trial.number for trial in standing.front}
    return shown, shown | {trial.number for tied in standing.tied.values() for trial in tied}
