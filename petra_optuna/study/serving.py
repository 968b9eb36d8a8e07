"""The inference tuner of a study whose files are measured as they are best served."""

from __future__ import annotations

from optuna.storages import BaseStorage

from petra_optuna.inference import InferenceTuner, ServingTuner, cores_of, device_of, inference_objective
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.study.specification import Specification
from petra_optuna.tasks import Task


def serving_tuner(
    specification: Specification, task: Task, storage: BaseStorage, runtime: str
) -> ServingTuner | None:
    """Tunes batch size and threads of each file; None where the study does not ask for it.

    Args:
        specification: Specification of the study.
        task: Task of the study; files are measured on its example.
        storage: Database of the nested studies.
        runtime: Runtime that serves.
    """
    if specification.tune_inference is None:
        return None
    device = device_of(specification.profile, runtime)
    tuner = InferenceTuner(
        storage=storage,
        device=device,
        cores=cores_of(specification.profile, device),
        objective=inference_objective(specification.tune_inference),
        seed=specification.seed,
    )
    return ServingTuner(tuner, to_feeds(task.example))
