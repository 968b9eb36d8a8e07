"""Plain networks that tasks start from."""

from petra_optuna.models.inception_time import InceptionModule, InceptionTime
from petra_optuna.models.residual import ResidualBlock, ResidualNet

__all__ = ["InceptionModule", "InceptionTime", "ResidualBlock", "ResidualNet"]
