"""Many processes run one study at the same time; prints the credits that each followed on the way.

python -m support.toy_workers URL PROCESSES TRIALS_OF_EACH
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from multiprocessing.synchronize import Barrier

import optuna
import sklearn.ensemble  # noqa: F401 - before the processes part, for it takes a second
from support.toy_space import FREE, objective

from petra_optuna.database import open_storage
from petra_optuna.samplers import PetraSampler
from petra_optuna.study import load_study

POPULATION = 6
_together: Barrier


def sampler() -> PetraSampler:
    """Of every process."""
    return PetraSampler(FREE, seed=3, population_size=POPULATION, candidates=4)


def _prepare(together: Barrier) -> None:
    global _together
    _together = together


def _work(url: str, trials: int) -> list[tuple[str, float]]:
    _together.wait()
    study = load_study(open_storage(url))
    study.sampler = mine = sampler()
    study.optimize(objective, n_trials=trials)
    _together.wait()
    return [(repr(plan), credit) for plan, credit in mine._history(study).credited_plans(10_000)]


def _main(url: str, processes: int, trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # This process has one thread and no connection yet; a spawned one would import for seconds.
    context = multiprocessing.get_context("fork")
    together = context.Barrier(processes, timeout=120)
    with context.Pool(processes, initializer=_prepare, initargs=(together,)) as pool:
        print(json.dumps(pool.starmap(_work, [(url, trials)] * processes, chunksize=1)))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
