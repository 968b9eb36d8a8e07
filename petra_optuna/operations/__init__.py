"""The nodes of a pipeline, one file each, and the space that holds them all."""

from petra_optuna.operations.bfloat16 import BFloat16
from petra_optuna.operations.context import Context
from petra_optuna.operations.drop_blocks import DropBlocks
from petra_optuna.operations.half import Half
from petra_optuna.operations.low_rank import LowRank
from petra_optuna.operations.prune import Prune
from petra_optuna.operations.quantize_aware import QuantizeAware
from petra_optuna.operations.quantize_dynamic import QuantizeDynamic
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.regularized_train import RegularizedTrain
from petra_optuna.operations.train import Train
from petra_optuna.pipeline import Operation, SearchSpace

BODY_OPERATIONS: tuple[type[Operation], ...] = (
    LowRank,
    Prune,
    DropBlocks,
    Train,
    RegularizedTrain,
    QuantizeAware,
)
CONVERSIONS: tuple[type[Operation], ...] = (QuantizeStatic, QuantizeDynamic, Half, BFloat16)


def default_space(max_length: int = 5, *, untrained: bool = False) -> SearchSpace:
    """Every built-in operation.

    Args:
        max_length: The longest body.
        untrained: Whether pipelines start from initialisation.
    """
    return SearchSpace(BODY_OPERATIONS, CONVERSIONS, max_length, untrained)


__all__ = [
    "BODY_OPERATIONS",
    "CONVERSIONS",
    "BFloat16",
    "Context",
    "DropBlocks",
    "Half",
    "LowRank",
    "Prune",
    "QuantizeAware",
    "QuantizeDynamic",
    "QuantizeStatic",
    "RegularizedTrain",
    "Train",
    "default_space",
]
