"""The built-in workloads."""

from petra_optuna.edgetune.workloads.registry import WORKLOADS, build_workload

__all__ = ["WORKLOADS", "build_workload"]
