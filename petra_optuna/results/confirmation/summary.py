"""From what was measured to what is known: intervals, differences, marks and ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import optuna

from petra_optuna.aliases import Array
from petra_optuna.measurement import Baseline
from petra_optuna.results.confirmation.bootstrap import interval, resampled
from petra_optuna.results.confirmation.dominance import (
    Outcomes,
    dominates_within_noise,
    outcome,
    outcome_of_difference,
    ranks_within_noise,
)
from petra_optuna.results.confirmation.judge import TestPredictions
from petra_optuna.results.confirmation.record import Confirmation, Estimate, Member, SeedRun
from petra_optuna.results.confirmation.retrain import Retrained
from petra_optuna.results.confirmation.timing import Timed, estimates
from petra_optuna.results.front import Row, evaluation_of, front, pipeline_text
from petra_optuna.study import record as attributes
from petra_optuna.study.lookup import specification_of
from petra_optuna.study.specification import Specification
from petra_optuna.tasks import Task

ORIGINAL = "original"


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that was measured.

    Attributes:
        rows: The front as the search left it.
        files: By trial.
        runs: Retrainings by trial.
        clock: Timing by trial.
        judged: Outputs and quality by ``ORIGINAL``, the trial's number as text, and ``name_of`` a retraining.
    """

    rows: tuple[Row, ...]
    files: Mapping[int, Path]
    runs: Mapping[int, tuple[Retrained, ...]]
    clock: Timed
    judged: TestPredictions

    @property
    def failures(self) -> dict[str, str]:
        """Why a file has no numbers, by the trial's number."""
        timing = {str(trial): text for trial, text in self.clock.failures.items()}
        return timing | {
            name: self.judged.failures[name] for name in map(str, self.files) if name in self.judged.failures
        }


def summary(
    study: optuna.Study,
    task: Task,
    found: Findings,
    baseline: Baseline,
    bootstrap: int,
    progress: Callable[[int, int], None],
) -> Confirmation:
    """Resample, compare and rank.

    Args:
        study: Whose front it is.
        task: The study's.
        found: What was measured.
        baseline: StudyPriors in the study.
        bootstrap: Resamples.
        progress: Called with what is done of the resamples, and their number.

    Raises:
        MeasurementFailed: When the metric is undefined on every resample.
    """
    specification, failures = specification_of(study), found.failures
    kept = [row for row in found.rows if str(row.trial) not in failures]
    names = [ORIGINAL, *(str(row.trial) for row in kept)]
    quality = np.array([found.judged.quality[name] for name in names])
    table = resampled(
        task.metric,
        [found.judged.outputs[name] for name in names],
        found.judged.targets,
        bootstrap,
        np.random.default_rng(specification.seed),
        lambda done: progress(done, bootstrap),
    )
    own = [interval(float(value), column) for value, column in zip(quality, table.T, strict=True)]
    values = [_values(row, found, own[index], baseline, specification) for index, row in enumerate(kept, 1)]
    outcomes = _outcomes(values, quality[1:], table[:, 1:], specification)
    dominates, ranks = dominates_within_noise(outcomes), ranks_within_noise(outcomes)
    members = tuple(
        _member(
            study,
            row,
            found,
            values[index],
            interval(float(quality[index + 1] - quality[0]), table[:, index + 1] - table[:, 0]),
            int(ranks[index]),
            tuple(kept[other].trial for other in np.flatnonzero(dominates[:, index])),
        )
        for index, row in enumerate(kept)
    )
    original = {name: Estimate.exact(value) for name, value in front(study).original.items()}
    return Confirmation(
        study=study.study_name,
        metric=task.metric.name,
        directions=dict(specification.objectives),
        original={**original, task.metric.name: own[0]},
        members=members,
        failures=failures,
        samples=len(found.judged.targets),
        resamples=len(table),
        rounds=max(len(measured) for measured in found.clock.rounds.values()),
        reading=readings_of(study),
    )


def readings_of(study: optuna.Study) -> int:
    """How often the test split was read for this study."""
    return int(study.user_attrs.get(attributes.TEST_READINGS, 0))


def name_of(trial: int, run: Retrained) -> str:
    """What a retraining's file is called among those that are judged."""
    return f"{trial} with seed {run.seed}"


def _values(
    row: Row, found: Findings, quality: Estimate, baseline: Baseline, specification: Specification
) -> dict[str, Estimate]:
    """The objectives; one that is neither measured again nor counted here is as the trial stored it."""
    values = {name: Estimate.exact(value) for name, value in row.values.items()}
    values["size_bytes"] = Estimate.exact(float(found.files[row.trial].stat().st_size))
    values |= estimates(found.clock.rounds[row.trial], baseline)
    values[specification.metric] = quality
    return {name: values[name] for name, _ in specification.objectives}


def _member(
    study: optuna.Study,
    row: Row,
    found: Findings,
    values: dict[str, Estimate],
    difference: Estimate,
    rank: int,
    dominated_by: tuple[int, ...],
) -> Member:
    runs = found.runs.get(row.trial, ())
    stored = found.files[row.trial].read_bytes()
    return Member(
        trial=row.trial,
        notation=pipeline_text(evaluation_of(study, row.trial), "notation"),
        pipeline=row.pipeline,
        values=values,
        selection=dict(row.values),
        difference=difference,
        rank=rank,
        dominated_by=dominated_by,
        seeds=tuple(_seed_run(row.trial, run, found.judged) for run in runs),
        seedless=any(run.path is not None and run.path.read_bytes() == stored for run in runs),
    )


def _seed_run(trial: int, run: Retrained, found: TestPredictions) -> SeedRun:
    name = name_of(trial, run)
    return SeedRun(run.seed, found.quality.get(name), run.failure or found.failures.get(name))


def _outcomes(
    values: list[dict[str, Estimate]], quality: Array, table: Array, specification: Specification
) -> Outcomes:
    count = len(values)
    outcomes = np.zeros((count, count, len(specification.objectives)), dtype=np.int64)
    for first in range(count):
        for second in range(count):
            for column, (name, direction) in enumerate(specification.objectives):
                if name == specification.metric:
                    difference = interval(
                        float(quality[first] - quality[second]), table[:, first] - table[:, second]
                    )
                    outcomes[first, second, column] = outcome_of_difference(difference, direction)
                else:
                    outcomes[first, second, column] = outcome(
                        values[first][name], values[second][name], direction
                    )
    return outcomes
