"""A search over the toy landscape in a process of its own: ``toy_search.py URL TRIALS KILL_AT STAGE SPACE``.

With KILL_AT >= 0 the process kills itself in that trial: before its plan (``start``), between two
parameters (``middle``) or after the last one (``end``).
"""

from __future__ import annotations

import os
import signal
import sys

import optuna
from support.toy_space import BOUNDS, DIRECTIONS, FREE, UNTRAINED, landscape

from petra_optuna.pipeline import Pipeline, encode, suggest
from petra_optuna.samplers import PetraSampler, fail_orphans, finished_trials

SPACES = {"free": FREE, "untrained": UNTRAINED}
CONTROLS = tuple(Pipeline.from_notation(text, FREE.operations) for text in ("original", "Ct-Ft-Pk", "Ft-Ct"))
POPULATION = 6


def search(url: str, trials: int, kill_at: int, stage: str, name: str) -> optuna.Study:
    """Run or resume the study until it has so many finished trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = SPACES[name]
    sampler = PetraSampler(space, seed=3, population_size=POPULATION, candidates=4)
    study = optuna.create_study(
        storage=url, study_name="toy", directions=DIRECTIONS, sampler=sampler, load_if_exists=True
    )
    if not study.trials:
        study.set_user_attr("petra:bounds", BOUNDS)
        for control in CONTROLS:
            if not space.violations(control):
                study.enqueue_trial(encode(control, space))
    fail_orphans(study, lambda trial: True)

    def killable(trial: optuna.Trial) -> tuple[float, float]:
        if trial.number == kill_at and stage == "start":
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.number == kill_at and stage == "middle":
            trial.suggest_int("length", space.min_length, space.max_length)
            os.kill(os.getpid(), signal.SIGKILL)
        values = landscape(suggest(trial, space))
        if trial.number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if values[0] < 0.7:
            raise ArithmeticError("too bad to be measured")
        return values

    while len(finished_trials(study)) < trials:
        study.optimize(killable, n_trials=1, catch=(ArithmeticError,))
    return study


if __name__ == "__main__":
    search(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
