"""Time series in tables: reading them, windows split by time, and tasks of values or classes."""

from petra_optuna.tasks.series import appliances, time_series

__all__ = ["appliances", "time_series"]
