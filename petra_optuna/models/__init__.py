"""Plain networks that tasks start from."""

from petra_optuna.models.inception_time import InceptionTime
from petra_optuna.models.residual import ResidualNet

__all__ = ["InceptionTime", "ResidualNet"]
