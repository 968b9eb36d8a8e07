"""Who climbs on: successive halving over a study's trials by several objectives, asynchronous.

All state is in the storage: a trial stores its result at a rung, then compares it with what every trial
has stored there, whatever the process. So decisions depend on who came first, as in ASHA (Li et al., arXiv
1810.05934), but never on a process that died. What is best among several objectives follows MO-ASHA
(Schmucker et al., arXiv 2106.12639): non-domination rank first, then spread, here the hypervolume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna

from petra_optuna.evaluation import Judge, RungResult, Rungs
from petra_optuna.evolution import Direction, contributions, minimised, ranks
from petra_optuna.samplers import superseded
from petra_optuna.study import attributes
from petra_optuna.study.specification import Specification

_BEYOND = 1.1
"""Where the hypervolume ends, in ranges of the results: results at the edge contribute too."""


def judge_of(trial: optuna.Trial, specification: Specification, *, spared: bool) -> Judge | None:
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
        trial.set_user_attr(f"{attributes.RUNG}{result.rung}", result.to_dict())
        others = rung_results(trial.study, result.rung, without=trial.number)
        better = place(result, others, specification.direction)
        if spared or goes_on(better, len(others) + 1, rungs):
            return None
        return (
            f"rung {result.rung}: {specification.metric} {result.quality:.4f} with {result.size_bytes:.0f} "
            f"bytes; {better} of {len(others) + 1} results there are better"
        )

    return judge


def place(result: RungResult, others: Sequence[RungResult], direction: str) -> int:
    """How many results of the rung are better: of a better non-domination rank, or adding more to the same.

    Quality, bytes and multiply-accumulates count, the last two by ratio.
    """
    way: Direction = "maximize" if direction == "maximize" else "minimize"
    table = [(one.quality, np.log1p(one.size_bytes), np.log1p(one.macs)) for one in (result, *others)]
    points = minimised(table, (way, "minimize", "minimize"))
    rank = ranks(points)
    lowest, width = points.min(axis=0), np.ptp(points, axis=0)
    units = (points - lowest) / np.where(width > 0, width, 1.0) / _BEYOND
    added = contributions(units[rank == rank[0]])
    return int((rank < rank[0]).sum() + (added > added[0]).sum())


def goes_on(better: int, count: int, rungs: Rungs) -> bool:
    """Whether a result is in the best 1/eta of so many; the first always is."""
    return better == 0 or better < count / rungs.eta


def rung_results(study: optuna.Study, rung: int, *, without: int) -> list[RungResult]:
    """What the other trials stored at a rung, without those that were run again."""
    trials = study.get_trials(deepcopy=False)
    gone = {without, *superseded(trials)}
    name = f"{attributes.RUNG}{rung}"
    found = [trial.user_attrs.get(name) for trial in trials if trial.number not in gone]
    return [RungResult.from_dict(one) for one in found if one is not None]
