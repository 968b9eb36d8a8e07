"""How to serve the file of a finished trial: tuned on this machine, kept with the study."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import optuna

from petra_optuna.inference import InferenceTuner, Recommendation, recommend_policy
from petra_optuna.inference.scenarios import Scenario
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.results.artifacts import check_task, fetch_model
from petra_optuna.scratch import scratch_folder
from petra_optuna.study import StudyRecord
from petra_optuna.study.objective import MODEL_FILE
from petra_optuna.tasks import Task

RECOMMENDED: Final = "petra:recommended:"
"""Key of a trial's recommendation among the study's user attributes; the trial's number follows."""


def recommend_trial(
    study: optuna.Study, number: int, task: Task, tuner: InferenceTuner, scenario: Scenario | None = None
) -> Recommendation:
    """Find how to serve a trial's file, and keep the answer with the study.

    Args:
        study: Study of the trial.
        number: Number of the trial.
        task: Task of the study; its example is what the file is measured on.
        tuner: What is searched, and where the nested studies are.
        scenario: How requests arrive, for which batch size and wait are recommended too; None for none.

    Raises:
        StudyError: When the trial has no file, or the file is damaged.
        UserError: When the device's memory does not hold the model, nothing counts the energy, or requests
            arrive faster than they can be served.
        MeasurementFailed: When no setting can be measured.
    """
    task = check_task(study, task)
    with scratch_folder("recommend") as folder:
        file = Path(folder, MODEL_FILE)
        fetch_model(study, StudyRecord(study).evaluation(number), file)
        feeds = to_feeds(task.example)
        answer = tuner.recommend(file, feeds)
        if scenario is not None:
            answer = answer.for_requests(scenario, recommend_policy(tuner, answer, scenario, file, feeds))
    study.set_user_attr(f"{RECOMMENDED}{number}", answer.to_dict())
    return answer


def recommendation_of(study: optuna.Study, number: int) -> Recommendation | None:
    """The trial's recommendation that was found last; None where there is none.

    It is that of ``recommend_trial``, else that by which the trial was measured (``tune_inference``).
    """
    stored = study.user_attrs.get(f"{RECOMMENDED}{number}")
    if stored is None:
        stored = StudyRecord(study).evaluation(number).get("recommendation")
    return None if stored is None else Recommendation.from_dict(stored)
