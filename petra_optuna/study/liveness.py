"""Which RUNNING trials still run, and running those again whose workers have died."""

from __future__ import annotations

import logging
import time

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.database import HEARTBEAT_S
from petra_optuna.samplers import Heartbeat, fail_orphans, heartbeats, record_heartbeat
from petra_optuna.study.trial_record import TrialRecord
from petra_optuna.study.worker_identity import Life, life_of

logger = logging.getLogger(__name__)
STALE_S = 2 * HEARTBEAT_S
"""A worker that cannot be seen is dead once its trial's heartbeat is older."""
_PAUSE_S = 1.0
_SAID_AFTER_PAUSES = 2
"""A trial that just started is unsigned for a moment; that is not worth a line."""


def claim_dead_trials(study: optuna.Study) -> list[int]:
    """Fail the RUNNING trials whose workers are known to be dead and enqueue their re-runs.

    The process table tells of a worker that it holds. Of all others the trial's heartbeat tells, and so it
    does of a trial that no worker has signed. A suspended worker therefore keeps its trial.

    Returns:
        Numbers of the trials that are run again.
    """
    stale = {number for number, beat in _unseen(study).items() if beat.age_s > STALE_S}
    return fail_orphans(study, lambda trial: trial.number in stale or _life(trial) is Life.DEAD)


def await_signs_of_life(study: optuna.Study) -> None:
    """Wait until each RUNNING trial has been seen to live or to be dead, then claim the dead ones.

    A trial that only its heartbeat tells of lives once that changes, and is dead once it is older than
    ``STALE_S``. The wait is told of in one line.
    """
    claim_dead_trials(study)
    waiting = _unseen(study)
    pauses = 0
    while waiting and pauses * _PAUSE_S <= STALE_S + HEARTBEAT_S:
        if pauses == _SAID_AFTER_PAUSES:
            numbers = ", ".join(map(str, waiting))
            logger.warning(
                "waiting up to %d s for a sign of life of trial %s: its worker may have died",
                STALE_S,
                numbers,
            )
        time.sleep(_PAUSE_S)
        pauses += 1
        claim_dead_trials(study)
        now = _unseen(study)
        waiting = {
            number: beat
            for number, beat in waiting.items()
            if number in now and now[number].last == beat.last
        }


def _unseen(study: optuna.Study) -> dict[int, Heartbeat]:
    """Heartbeats of the RUNNING trials that the process table tells nothing of, by trial number.

    A worker may die before the first heartbeat, and a trial without one would never be known to be dead. It
    gets one here.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    unseen = [trial for trial in running if _life(trial) is Life.UNKNOWN]
    beats = heartbeats(study) if unseen else {}
    silent = [trial for trial in unseen if trial.number not in beats]
    for trial in silent:
        record_heartbeat(study, trial)
    beats = heartbeats(study) if silent else beats
    return {trial.number: beats[trial.number] for trial in unseen if trial.number in beats}


def _life(trial: FrozenTrial) -> Life:
    worker = TrialRecord(trial).worker
    return Life.UNKNOWN if worker is None else life_of(worker)
