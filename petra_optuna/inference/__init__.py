"""How a file is best served: settings, devices, the inference tuning server and its recommendations."""

from petra_optuna.inference.device import (
    BUILT_IN,
    THIS_MACHINE,
    EdgeDevice,
    parse_device,
    serving_cores,
)
from petra_optuna.inference.objective import (
    INFERENCE_OBJECTIVES,
    InferenceObjective,
    inference_objective,
)
from petra_optuna.inference.pause import Pause
from petra_optuna.inference.recommendation import Recommendation
from petra_optuna.inference.requests import recommend_policy
from petra_optuna.inference.server import InferenceServer, ServerCounts
from petra_optuna.inference.space import MAX_BATCH, InferenceSpace
from petra_optuna.inference.tuned import ServingTuner, cores_of, device_of
from petra_optuna.inference.tuner import DEFAULT_ALGORITHM, InferenceTuner, is_nested

__all__ = [
    "BUILT_IN",
    "DEFAULT_ALGORITHM",
    "INFERENCE_OBJECTIVES",
    "MAX_BATCH",
    "THIS_MACHINE",
    "EdgeDevice",
    "InferenceObjective",
    "InferenceServer",
    "InferenceSpace",
    "InferenceTuner",
    "Pause",
    "Recommendation",
    "ServerCounts",
    "ServingTuner",
    "cores_of",
    "device_of",
    "inference_objective",
    "is_nested",
    "parse_device",
    "recommend_policy",
    "serving_cores",
]
