"""Simulated INT8 for quantisation-aware training."""

from petra_optuna.nn.quantization.coarse import why_too_coarse
from petra_optuna.nn.quantization.fake_quant import FakeQuantization

__all__ = [
    "FakeQuantization",
    "why_too_coarse",
]
