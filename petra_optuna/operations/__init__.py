"""The nodes of a pipeline, one file each, and the space that holds them all."""

from petra_optuna.operations.context import Context
from petra_optuna.operations.drop_blocks import DropBlocks
from petra_optuna.operations.half_precision import BFloat16, Half
from petra_optuna.operations.low_rank import LowRank
from petra_optuna.operations.prune import Prune
from petra_optuna.operations.quantize_aware import QuantizeAware
from petra_optuna.operations.quantize_dynamic import QuantizeDynamic
from petra_optuna.operations.quantize_nncf import QuantizeNncf
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.regularized_train import RegularizedTrain
from petra_optuna.operations.space import (
    BODY_OPERATIONS,
    CONVERSIONS,
    EVERY_OPERATION,
    check_runs,
    default_space,
)
from petra_optuna.operations.train import Train

__all__ = [
    "BODY_OPERATIONS",
    "CONVERSIONS",
    "EVERY_OPERATION",
    "BFloat16",
    "Context",
    "DropBlocks",
    "Half",
    "LowRank",
    "Prune",
    "QuantizeAware",
    "QuantizeDynamic",
    "QuantizeNncf",
    "QuantizeStatic",
    "RegularizedTrain",
    "Train",
    "check_runs",
    "default_space",
]
