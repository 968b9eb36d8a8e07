"""The built-in workloads."""

from petra_optuna.edgetune.workloads.registry import WORKLOADS, build_workload, stored_workload

__all__ = ["WORKLOADS", "build_workload", "stored_workload"]
