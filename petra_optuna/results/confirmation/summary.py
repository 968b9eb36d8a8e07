"""From what was measured to what is known: intervals, differences, marks and ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna

from petra_optuna.aliases import Array
from petra_optuna.measurement import Baseline
from petra_optuna.results.confirmation.bootstrap import interval, resample
from petra_optuna.results.confirmation.dominance import (
    Outcomes,
    dominates_within_noise,
    outcome,
    outcome_of_difference,
    ranks_within_noise,
)
from petra_optuna.results.confirmation.predictions import TestPredictions
from petra_optuna.results.confirmation.record import Confirmation, Estimate, Member, SeedRun
from petra_optuna.results.confirmation.retrain import Retraining
from petra_optuna.results.confirmation.timing import Timings, estimates
from petra_optuna.results.front import Row, front, pipeline_text
from petra_optuna.study import Specification, StudyRecord
from petra_optuna.tasks import Task

BASELINE = "baseline"
"""Name of the baseline's file among the files that run on the test split."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that was measured.

    Attributes:
        rows: The front as the search left it.
        files: Files by trial.
        retrainings: Retrainings by trial.
        timings: Repeated measurements of the files.
        predictions: Outputs and quality by name of the file: ``BASELINE``, the trial's number as text, and
            ``name_of`` a retraining.
        reading: Number of this reading of the test split.
    """

    rows: tuple[Row, ...]
    files: Mapping[int, Path]
    retrainings: Mapping[int, tuple[Retraining, ...]]
    timings: Timings
    predictions: TestPredictions
    reading: int

    @property
    def failures(self) -> dict[str, str]:
        """Why a file has no numbers, by the trial's number."""
        of_timing = {str(trial): text for trial, text in self.timings.failures.items()}
        on_test = self.predictions.failures
        return of_timing | {name: on_test[name] for name in map(str, self.files) if name in on_test}


def summarize(
    study: optuna.Study,
    task: Task,
    findings: Findings,
    baseline: Baseline,
    resamples: int,
    progress: Callable[[int, int], None],
) -> Confirmation:
    """Resample, compare and rank.

    Args:
        study: Study of the front.
        task: Task of the study.
        findings: What was measured.
        baseline: The study's frozen baseline.
        resamples: Resamples of the bootstrap.
        progress: Called with the number of resamples done, and their number.

    Raises:
        MeasurementFailed: When the metric is undefined on every resample.
    """
    record = StudyRecord(study)
    specification, failures = record.specification, findings.failures
    kept = tuple(row for row in findings.rows if str(row.trial) not in failures)
    names = [BASELINE, *(str(row.trial) for row in kept)]
    predictions = findings.predictions
    table = resample(
        task.metric,
        [predictions.outputs[name] for name in names],
        predictions.targets,
        resamples,
        np.random.default_rng(specification.seed),
        lambda done: progress(done, resamples),
        block=task.block,
    )
    quality = np.array([predictions.quality[name] for name in names])
    comparison = _Comparison(findings, kept, quality, table, baseline, specification)
    of_baseline = {name: Estimate.exact(value) for name, value in front(study).baseline.items()}
    return Confirmation(
        study=study.study_name,
        metric=task.metric.name,
        directions=dict(specification.objectives),
        baseline={**of_baseline, task.metric.name: interval(float(quality[0]), table[:, 0])},
        members=tuple(comparison.member(index, record) for index in range(len(kept))),
        failures=failures,
        samples=len(predictions.targets),
        resamples=len(table),
        rounds=max(len(measured) for measured in findings.timings.rounds.values()),
        reading=findings.reading,
    )


def name_of(trial: int, retraining: Retraining) -> str:
    """Name of a retraining's file among the files that run on the test split."""
    return f"{trial} with seed {retraining.seed}"


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """The members of a front against each other and against the baseline.

    Attributes:
        findings: What was measured.
        rows: The n members that have numbers.
        quality: Quality of the baseline and of each member, shape (1 + n,).
        table: The same on each resample, shape (resamples, 1 + n).
        baseline: The study's frozen baseline.
        specification: Specification of the study.
    """

    findings: Findings
    rows: tuple[Row, ...]
    quality: Array
    table: Array
    baseline: Baseline
    specification: Specification

    def member(self, index: int, record: StudyRecord) -> Member:
        """What is known of one member of the front."""
        row = self.rows[index]
        retrainings = self.findings.retrainings.get(row.trial, ())
        stored = self.findings.files[row.trial].read_bytes()
        dominating = np.flatnonzero(self._dominates[:, index])
        return Member(
            trial=row.trial,
            notation=pipeline_text(record.evaluation(row.trial), "notation"),
            pipeline=row.pipeline,
            values=self._values[index],
            selection=dict(row.values),
            difference=self._difference(index + 1, 0),
            rank=int(self._ranks[index]),
            dominated_by=tuple(self.rows[other].trial for other in dominating),
            seeds=tuple(self._seed_run(row.trial, retraining) for retraining in retrainings),
            seedless=any(
                retraining.path is not None and retraining.path.read_bytes() == stored
                for retraining in retrainings
            ),
        )

    @cached_property
    def _values(self) -> list[dict[str, Estimate]]:
        """The objectives of each member; one that is neither measured again nor counted is as stored."""
        members = []
        for column, row in enumerate(self.rows, start=1):
            values = {name: Estimate.exact(value) for name, value in row.values.items()}
            values["size_bytes"] = Estimate.exact(float(self.findings.files[row.trial].stat().st_size))
            values |= estimates(self.findings.timings.rounds[row.trial], self.baseline)
            quality = interval(float(self.quality[column]), self.table[:, column])
            values[self.specification.metric] = quality
            members.append({name: values[name] for name, _ in self.specification.objectives})
        return members

    @cached_property
    def _outcomes(self) -> Outcomes:
        """Row against column in each objective, shape (n, n, m)."""
        count, objectives = len(self.rows), self.specification.objectives
        outcomes = np.zeros((count, count, len(objectives)), dtype=np.int64)
        for first, second, column in np.ndindex(outcomes.shape):
            name, direction = objectives[column]
            if name == self.specification.metric:
                difference = self._difference(first + 1, second + 1)
                outcomes[first, second, column] = outcome_of_difference(difference, direction)
            else:
                values = self._values[first][name], self._values[second][name]
                outcomes[first, second, column] = outcome(*values, direction)
        return outcomes

    @cached_property
    def _dominates(self) -> npt.NDArray[np.bool_]:
        return dominates_within_noise(self._outcomes)

    @cached_property
    def _ranks(self) -> npt.NDArray[np.int64]:
        return ranks_within_noise(self._outcomes)

    def _difference(self, first: int, second: int) -> Estimate:
        """Quality of one column of the table less that of another, over the same resamples."""
        value = float(self.quality[first] - self.quality[second])
        return interval(value, self.table[:, first] - self.table[:, second])

    def _seed_run(self, trial: int, retraining: Retraining) -> SeedRun:
        name, predictions = name_of(trial, retraining), self.findings.predictions
        failure = retraining.failure or predictions.failures.get(name)
        return SeedRun(retraining.seed, predictions.quality.get(name), failure)
