"""How requests that arrive in a scenario are best served by the model of a tuning study."""

from __future__ import annotations

from pathlib import Path

from petra_optuna.database import open_storage
from petra_optuna.edgetune.result import TuningResult, fetch_file
from petra_optuna.edgetune.workload import Workload
from petra_optuna.errors import StudyError
from petra_optuna.inference import InferenceTuner, Recommendation, recommend_policy, serving_cores
from petra_optuna.inference.scenarios import Scenario
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.scratch import scratch_folder
from petra_optuna.study import MODEL_FILE


def for_requests(result: TuningResult, workload: Workload, url: str, scenario: Scenario) -> Recommendation:
    """The trial's recommendation with batch size and wait for requests of a scenario, measured now.

    Args:
        result: The trial.
        workload: Workload of the study; its example is what the file is measured on.
        url: URL of the study's database.
        scenario: How requests arrive.

    Raises:
        StudyError: When the trial has no recommendation, or its file is not there.
        UserError: When requests arrive faster than they can be served.
    """
    answer = result.recommendation
    if answer is None:
        raise StudyError("the tuning study has no inference objective, so it recommends no settings")
    tuner = InferenceTuner(
        storage=open_storage(url),
        device=answer.device,
        cores=serving_cores(answer.device),
        objective=answer.objective,
        max_batch=result.specification.max_batch,
        energy=result.specification.energy,
    )
    with scratch_folder("requests") as folder:
        file = Path(folder, MODEL_FILE)
        fetch_file(result, url, file)
        feeds = to_feeds(workload.task.example)
        return answer.for_requests(scenario, recommend_policy(tuner, answer, scenario, file, feeds))
