"""EDGETUNE: models and training are tuned for how they serve (doi 10.1145/3528535.3533273)."""

from petra_optuna.edgetune.workload import TRAINING_SPACE, Workload

__all__ = ["TRAINING_SPACE", "Workload"]
