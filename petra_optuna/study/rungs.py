"""Who climbs on: non-dominated successive halving over a study's trials, asynchronous.

All state is in the storage: a trial stores its result at a rung, then compares it with what every trial
has stored there, whatever the process. So decisions depend on who came first, as in ASHA (Li et al., arXiv
1810.05934), but never on a process that died.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from petra_optuna.evaluation import Judge, RungResult, Rungs
from petra_optuna.evolution import Direction, minimised, ranks
from petra_optuna.samplers import superseded
from petra_optuna.study import attributes
from petra_optuna.study.specification import Specification


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
        better, count = standing(result, others, specification.direction)
        if spared or goes_on(better, count, rungs):
            return None
        return (
            f"rung {result.rung}: {specification.metric} {result.quality:.4f} with {result.parameters} "
            f"parameters; {better} of {count} results there are of a better rank"
        )

    return judge


def standing(result: RungResult, others: Sequence[RungResult], direction: str) -> tuple[int, int]:
    """How many results of the same rung and conversion have a better non-domination rank, and of how many.

    Quality, parameters and multiply-accumulates count. The result itself is one of the many.
    """
    same = [result, *(other for other in others if other.conversion == result.conversion)]
    table = [(one.quality, one.parameters, one.macs) for one in same]
    ways: tuple[Direction, ...] = (
        "maximize" if direction == "maximize" else "minimize",
        "minimize",
        "minimize",
    )
    rank = ranks(minimised(table, ways))
    return int((rank < rank[0]).sum()), len(same)


def goes_on(better: int, count: int, rungs: Rungs) -> bool:
    """Whether a result is in the best 1/eta of its rung; one that none dominates always is."""
    return better == 0 or better < count / rungs.eta


def rung_results(study: optuna.Study, rung: int, *, without: int) -> list[RungResult]:
    """What the other trials stored at a rung, without those that were run again."""
    trials = study.get_trials(deepcopy=False)
    gone = {without, *superseded(trials)}
    name = f"{attributes.RUNG}{rung}"
    found = [trial.user_attrs.get(name) for trial in trials if trial.number not in gone]
    return [RungResult.from_dict(one) for one in found if one is not None]
