"""How fast a file is against the baseline on this device. Does not import torch."""

from petra_optuna.measurement.answers import private_stdout
from petra_optuna.measurement.child import Child, RequestRefused
from petra_optuna.measurement.energy import COUNTERS, ESTIMATED, Counter, counter_named
from petra_optuna.measurement.feeds import load_feeds, write_feeds
from petra_optuna.measurement.load import ForeignLoad
from petra_optuna.measurement.pool import TOLERANCE, Measurer, ShapeMeasurement, ShapeMeasurer, ShapeStore
from petra_optuna.measurement.process import MeasuringProcess
from petra_optuna.measurement.profile import LIBRARIES, DeviceProfile, available_cores
from petra_optuna.measurement.protocol import Schedule
from petra_optuna.measurement.record import Baseline, Energy, FileMeasurement, Measurement
from petra_optuna.measurement.setting import InferenceSetting, SettingMeasurement
from petra_optuna.measurement.setting_process import SettingProcess
from petra_optuna.measurement.shape import shape_signature

__all__ = [
    "COUNTERS",
    "ESTIMATED",
    "LIBRARIES",
    "TOLERANCE",
    "Baseline",
    "Child",
    "Counter",
    "DeviceProfile",
    "Energy",
    "FileMeasurement",
    "ForeignLoad",
    "InferenceSetting",
    "Measurement",
    "Measurer",
    "MeasuringProcess",
    "RequestRefused",
    "Schedule",
    "SettingMeasurement",
    "SettingProcess",
    "ShapeMeasurement",
    "ShapeMeasurer",
    "ShapeStore",
    "available_cores",
    "counter_named",
    "load_feeds",
    "private_stdout",
    "shape_signature",
    "write_feeds",
]
