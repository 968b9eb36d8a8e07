"""How fast is a file, against the yardstick, on this device? Does not import torch."""

from petra_optuna.measurement.process import MeasuringProcess
from petra_optuna.measurement.profile import DeviceProfile, available_cores
from petra_optuna.measurement.protocol import Schedule, compare, time_alone
from petra_optuna.measurement.record import Measurement

__all__ = [
    "DeviceProfile",
    "Measurement",
    "MeasuringProcess",
    "Schedule",
    "available_cores",
    "compare",
    "time_alone",
]
