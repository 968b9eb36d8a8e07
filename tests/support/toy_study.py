"""A study over the toy landscape with all that a loop of trials reads of it."""

from __future__ import annotations

import optuna
from support.specification import specification_with
from support.toy_space import BOUNDS, DIRECTIONS, FREE, landscape

from petra_optuna.database import open_storage
from petra_optuna.pipeline import suggest
from petra_optuna.samplers import PetraSampler
from petra_optuna.study import StudyRecord, TrialRecord, load_study
from petra_optuna.study.trial_record import WorkerIdentity
from petra_optuna.study.worker_identity import this_worker

optuna.logging.set_verbosity(optuna.logging.ERROR)
NAME = "toy"


def new_study(url: str) -> optuna.Study:
    """A new study; other processes open it with ``opened``."""
    study = optuna.create_study(storage=open_storage(url), study_name=NAME, directions=DIRECTIONS)
    record = StudyRecord(study)
    record.store_specification(specification_with(FREE))
    study.set_user_attr("petra:bounds", BOUNDS)
    study.set_metric_names(["accuracy", "size_bytes"])
    record.mark_complete()
    return opened(url)


def opened(url: str) -> optuna.Study:
    """The study over a connection of its own."""
    study = load_study(open_storage(url), NAME)
    study.sampler = PetraSampler(FREE, seed=3, population_size=6, candidates=4)
    return study


def signed(trial: optuna.Trial) -> tuple[float, float]:
    """The landscape as an objective of this worker."""
    TrialRecord(trial).store_worker(this_worker())
    return landscape(suggest(trial, FREE))


def elsewhere() -> WorkerIdentity:
    """This process as one of another machine of the same name sees it."""
    return {**this_worker(), "process_table": "another boot"}


def ended() -> WorkerIdentity:
    """A process of this machine that has ended; this one has its number now."""
    return {**this_worker(), "start_mark": 0.0}
