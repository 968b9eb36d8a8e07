"""How fast a file is against the baseline on this device. Does not import torch."""

from petra_optuna.measurement.process import MeasuringProcess
from petra_optuna.measurement.profile import DeviceProfile, available_cores
from petra_optuna.measurement.protocol import Schedule
from petra_optuna.measurement.record import Baseline, Energy, FileMeasurement, Measurement

__all__ = [
    "Baseline",
    "DeviceProfile",
    "Energy",
    "FileMeasurement",
    "Measurement",
    "MeasuringProcess",
    "Schedule",
    "available_cores",
]
