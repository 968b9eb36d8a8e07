"""How fast a file is against the baseline on this device. Does not import torch."""

from petra_optuna.measurement.load import ForeignLoad
from petra_optuna.measurement.pool import TOLERANCE, Measurer, ShapeMeasurement, ShapeMeasurer, ShapeStore
from petra_optuna.measurement.process import MeasuringProcess
from petra_optuna.measurement.profile import LIBRARIES, DeviceProfile, available_cores
from petra_optuna.measurement.protocol import Schedule
from petra_optuna.measurement.record import Baseline, Energy, FileMeasurement, Measurement
from petra_optuna.measurement.shape import shape_signature

__all__ = [
    "LIBRARIES",
    "TOLERANCE",
    "Baseline",
    "DeviceProfile",
    "Energy",
    "FileMeasurement",
    "ForeignLoad",
    "Measurement",
    "Measurer",
    "MeasuringProcess",
    "Schedule",
    "ShapeMeasurement",
    "ShapeMeasurer",
    "ShapeStore",
    "available_cores",
    "shape_signature",
]
