"""Creating, running and resuming studies."""

from petra_optuna.study.controls import controls
from petra_optuna.study.create import create_study
from petra_optuna.study.draft import draft_study
from petra_optuna.study.lookup import find, load_study
from petra_optuna.study.objective import MODEL_FILE, Objective
from petra_optuna.study.record import StudyRecord, fetch_artifact
from petra_optuna.study.regression import DEFAULT_REGION
from petra_optuna.study.replay import recorded_trials, replay_objective, replay_study
from petra_optuna.study.run import DEFAULT_CACHE, DEFAULT_POPULATION, PETRA, optimize, resume
from petra_optuna.study.specification import Specification, TaskSource
from petra_optuna.study.stop import Stop, stop_of
from petra_optuna.study.trial_end import TrialEnd
from petra_optuna.study.trial_loop import Callback, TrialLoop
from petra_optuna.study.trial_record import TrialRecord, why_no_file
from petra_optuna.study.warm_start import check_origin, origin_of, warm_start_line
from petra_optuna.study.worker_identity import this_worker
from petra_optuna.study.worker_processes import ParentWatch

__all__ = [
    "DEFAULT_CACHE",
    "DEFAULT_POPULATION",
    "DEFAULT_REGION",
    "MODEL_FILE",
    "PETRA",
    "Callback",
    "Objective",
    "ParentWatch",
    "Specification",
    "Stop",
    "StudyRecord",
    "TaskSource",
    "TrialEnd",
    "TrialLoop",
    "TrialRecord",
    "check_origin",
    "controls",
    "create_study",
    "draft_study",
    "fetch_artifact",
    "find",
    "load_study",
    "optimize",
    "origin_of",
    "recorded_trials",
    "replay_objective",
    "replay_study",
    "resume",
    "stop_of",
    "this_worker",
    "warm_start_line",
    "why_no_file",
]
