"""Plain networks that tasks start from."""

from petra_optuna.models.residual import ResidualBlock, ResidualNet

__all__ = ["ResidualBlock", "ResidualNet"]
