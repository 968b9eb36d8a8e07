"""Plain networks that tasks start from."""

from petra_optuna.models.event_encoder import EventEncoder
from petra_optuna.models.forecast import Forecast
from petra_optuna.models.inception_time import InceptionTime
from petra_optuna.models.m5 import M5
from petra_optuna.models.residual import ResidualNet
from petra_optuna.models.text_rnn import TextRNN
from petra_optuna.models.yolo import YOLO

__all__ = ["M5", "YOLO", "EventEncoder", "Forecast", "InceptionTime", "ResidualNet", "TextRNN"]
