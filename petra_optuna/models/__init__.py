"""Plain networks that tasks start from."""

from petra_optuna.models.inception_time import InceptionTime
from petra_optuna.models.m5 import M5
from petra_optuna.models.residual import ResidualNet

__all__ = ["M5", "InceptionTime", "ResidualNet"]
