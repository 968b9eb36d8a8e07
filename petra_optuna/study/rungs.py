"""Which trials train on: asynchronous successive halving of a study's trials by several objectives.

All state is in the storage: a trial stores its result at a rung, then compares it with what every trial has
stored there, whatever the process. So decisions depend on which trial came first, as in ASHA (Li et al.,
arXiv 1810.05934), but never on a process that died. What is best among several objectives follows MO-ASHA
(Schmucker et al., arXiv 2106.12639): non-domination rank first, then spread. Spread is measured here as
hypervolume for each second of training that is left: a trial that stops loses that training alone, not its
file. A search gets better, so that more than 1/eta of its trials stand among the best of what came before; a
bound on the training that they may take keeps successive halving's promise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import optuna

from petra_optuna.aliases import Array, Direction
from petra_optuna.evaluation import RungJudge, RungResult, Rungs
from petra_optuna.evolution import contributions, minimised, ranks
from petra_optuna.study.record import StudyRecord
from petra_optuna.study.specification import Specification
from petra_optuna.study.trial_record import RungDecision, TrialRecord

_WORTH = 0.3
"""Share of the best quality at a rung by which another may be worse and still add to its rank's volume."""

_MARGIN = 1.1
"""Where the hypervolume ends, in ranges of bytes and multiply-accumulates: the largest contribute too."""

_SLACK = 1.5
"""Trials that train on may take this times 1/eta of the training that all trials at the rung had left."""

_SOON = 1e-9
"""Least seconds of training left: a rung may fall on a training's last step."""


def rung_judge(trial: optuna.Trial, specification: Specification, *, spared: bool) -> RungJudge | None:
    """What stores a trial's results at the study's rungs and decides; None where there are no rungs.

    Args:
        trial: Running trial.
        specification: Specification of its study.
        spared: Whether the trial is never stopped, as a control is; its results count for the others.
    """
    rungs = specification.rungs
    if rungs is None:
        return None

    def judge(result: RungResult) -> str | None:
        record = TrialRecord(trial)
        record.store_rung(RungDecision(result))
        others = StudyRecord(trial.study).rung_results(result.rung, without=trial.number)
        reason = None if spared else reason_to_stop(result, others, rungs, specification.direction)
        if reason is None:
            record.store_rung(RungDecision(result, trains_on=True))
            return None
        return (
            f"rung {result.rung}: {specification.metric} {result.quality:.4f} with {result.size_bytes:.0f} "
            f"bytes; {reason}"
        )

    return judge


def reason_to_stop(
    result: RungResult, others: Sequence[RungDecision], rungs: Rungs, direction: Direction
) -> str | None:
    """Why a trial stops at a rung, or None: it must be among the best, and there must be training to give.

    Args:
        result: Result of the trial at the rung.
        others: Decisions on all other trials there.
        rungs: Ladder whose ``eta`` counts.
        direction: Direction of the quality.
    """
    rank = rank_at_rung(result, [other.result for other in others], direction)
    if not rank.goes_on(rungs):
        return f"{rank.better} of {rank.count} results there are better"
    limit_s = _SLACK / rungs.eta * (result.rest_s + math.fsum(other.result.rest_s for other in others))
    given_s = math.fsum(other.result.rest_s for other in others if other.trains_on)
    if given_s + result.rest_s > limit_s:
        left_s = max(limit_s - given_s, 0.0)
        return f"its training would take {result.rest_s:.3g} s more, and {left_s:.3g} s are left to give"
    return None


@dataclasses.dataclass(frozen=True)
class RungRank:
    """Where a result stands at its rung.

    Attributes:
        better: Number of results of a better non-domination rank, or of the same rank that add more
            hypervolume for each second of training that they have left.
        count: Number of results there, itself included.
    """

    better: int
    count: int

    def goes_on(self, rungs: Rungs) -> bool:
        """Whether it is among the best 1/eta."""
        return self.better < self.count / rungs.eta


def rank_at_rung(result: RungResult, others: Sequence[RungResult], direction: Direction) -> RungRank:
    """Where a result stands among others of its rung by quality, bytes and multiply-accumulates.

    Bytes and multiply-accumulates count by ratio. What is far below the best quality adds nothing, however
    small it is.
    """
    points = points_of((result, *others), direction)
    rank = ranks(points)
    lowest, width = points.min(axis=0), _MARGIN * np.ptp(points, axis=0)
    width[0] = _WORTH * abs(lowest[0])
    units = (points - lowest) / np.where(width > 0, width, 1.0)
    peers = rank == rank[0]
    rest_s = np.array([entry.rest_s for entry in (result, *others)])[peers]
    volume_per_s = contributions(units[peers]) / np.maximum(rest_s, _SOON)
    better = int((rank < rank[0]).sum() + (volume_per_s > volume_per_s[0]).sum())
    return RungRank(better, len(points))


def points_of(results: Sequence[RungResult], direction: Direction) -> Array:
    """Quality, log bytes and log multiply-accumulates, shape (n, 3), all to be minimised."""
    table = [(entry.quality, np.log1p(entry.size_bytes), np.log1p(entry.macs)) for entry in results]
    return minimised(table, (direction, "minimize", "minimize"))
