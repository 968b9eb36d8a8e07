"""Who trains on: successive halving over a study's trials by several objectives, asynchronous.

All state is in the storage: a trial stores its result at a rung, then compares it with what every trial
has stored there, whatever the process. So decisions depend on who came first, as in ASHA (Li et al., arXiv
1810.05934), but never on a process that died. What is best among several objectives follows MO-ASHA
(Schmucker et al., arXiv 2106.12639): non-domination rank first, then spread, here the hypervolume, by
second of the training that is left: who stops loses that training alone, not its file. A search gets
better, so that more than 1/eta of its trials stand among the best of what came before; a bound on the
training that they may take keeps successive halving's promise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from petra_optuna.evaluation import Judge, RungResult, Rungs
from petra_optuna.evolution import Array, Direction, contributions, minimised, ranks
from petra_optuna.samplers import superseded
from petra_optuna.study import record as attributes
from petra_optuna.study.specification import Specification

_WORTH = 0.3
"""How much worse than the best, as a share of it, a quality may be at a rung and still add to its rank."""

_BEYOND = 1.1
"""Where the hypervolume ends, in ranges of bytes and multiply-accumulates: the largest contribute too."""

_SLACK = 1.5
"""Those who train on may take this by 1/eta of the training that all who were judged had left."""

_SOON = 1e-9
"""Seconds of training that are none: a rung may fall on a training's last step."""


def rung_judge(trial: optuna.Trial, specification: Specification, *, spared: bool) -> Judge | None:
    """What stores a trial's results at the study's rungs and decides; None where there are no rungs.

    Args:
        trial: The running trial.
        specification: Of its study.
        spared: Whether the trial is never stopped, as a control is; its results count for the others.
    """
    rungs = specification.rungs
    if rungs is None:
        return None

    def judge(result: RungResult) -> str | None:
        name = f"{attributes.RUNG}{result.rung}"
        trial.set_user_attr(name, RungDecision(result).to_dict())
        others = rung_results(trial.study, result.rung, without=trial.number)
        stop = None if spared else reason_to_stop(result, others, rungs, specification.direction)
        if stop is None:
            trial.set_user_attr(name, RungDecision(result, trains_on=True).to_dict())
            return None
        return (
            f"rung {result.rung}: {specification.metric} {result.quality:.4f} with {result.size_bytes:.0f} "
            f"bytes; {stop}"
        )

    return judge


@dataclasses.dataclass(frozen=True)
class RungDecision:
    """A result and what became of it; ``trains_on`` is False until that is decided."""

    result: RungResult
    trains_on: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**self.result.to_dict(), "trains_on": self.trains_on}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RungDecision:
        """Inverse of ``to_dict``."""
        fields = dict(data)
        trains_on = fields.pop("trains_on")
        return cls(RungResult.from_dict(fields), trains_on)


def reason_to_stop(
    result: RungResult, others: Sequence[RungDecision], rungs: Rungs, direction: Direction
) -> str | None:
    """Why a result does not train on, or None: it must be among the best, and there must be training to give.

    Args:
        result: At a rung.
        others: All others there.
        rungs: Whose eta counts.
        direction: Of the quality.
    """
    standing = rank_at_rung(result, [one.result for one in others], direction)
    if not standing.goes_on(rungs):
        return f"{standing.better} of {standing.count} results there are better"
    most = _SLACK / rungs.eta * (result.rest_s + math.fsum(one.result.rest_s for one in others))
    given = math.fsum(one.result.rest_s for one in others if one.trains_on)
    if given + result.rest_s > most:
        left = max(most - given, 0.0)
        return f"its training would take {result.rest_s:.3g} s more, and {left:.3g} s are left to give"
    return None


@dataclasses.dataclass(frozen=True)
class RungRank:
    """Where a result stands at its rung.

    Attributes:
        better: How many are of a better non-domination rank, or of the same and add more hypervolume by
            second of the training that each has left.
        count: Of all there, itself included.
    """

    better: int
    count: int

    def goes_on(self, rungs: Rungs) -> bool:
        """Whether it is among the best 1/eta."""
        return self.better < self.count / rungs.eta


def rank_at_rung(result: RungResult, others: Sequence[RungResult], direction: Direction) -> RungRank:
    """Where a result stands among others of its rung by quality, bytes and multiply-accumulates.

    The last two count by ratio. What is far below the best quality adds nothing, however small it is.
    """
    points = points_of((result, *others), direction)
    rank = ranks(points)
    lowest, width = points.min(axis=0), _BEYOND * np.ptp(points, axis=0)
    width[0] = _WORTH * abs(lowest[0])
    units = (points - lowest) / np.where(width > 0, width, 1.0)
    peers = rank == rank[0]
    rest = np.array([one.rest_s for one in (result, *others)])[peers]
    added = contributions(units[peers]) / np.maximum(rest, _SOON)
    better = int((rank < rank[0]).sum() + (added > added[0]).sum())
    return RungRank(better, len(points))


def points_of(results: Sequence[RungResult], direction: Direction) -> Array:
    """Quality, log bytes and log multiply-accumulates, shape (n, 3), all to be minimised."""
    table = [(one.quality, np.log1p(one.size_bytes), np.log1p(one.macs)) for one in results]
    return minimised(table, (direction, "minimize", "minimize"))


def rung_results(study: optuna.Study, rung: int, *, without: int) -> list[RungDecision]:
    """What the other trials stored at a rung, without those that were run again.

    What was stored before there was ``trains_on`` does not count.
    """
    trials = study.get_trials(deepcopy=False)
    gone = {without, *superseded(trials)}
    name = f"{attributes.RUNG}{rung}"
    found = [trial.user_attrs.get(name) for trial in trials if trial.number not in gone]
    return [RungDecision.from_dict(one) for one in found if one is not None and "trains_on" in one]
