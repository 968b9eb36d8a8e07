"""How fast is a file, against the yardstick, on this device? Does not import torch."""

from petra_optuna.measurement.process import MeasuringProcess
from petra_optuna.measurement.profile import DeviceProfile, available_cores
from petra_optuna.measurement.protocol import Schedule, compare, time_alone
from petra_optuna.measurement.record import Energy, Measured, Measurement, Yardstick

__all__ = [
    "DeviceProfile",
    "Energy",
    "Measured",
    "Measurement",
    "MeasuringProcess",
    "Schedule",
    "Yardstick",
    "available_cores",
    "compare",
    "time_alone",
]
