"""The built-in operations, and the search spaces that they make."""

from __future__ import annotations

from petra_optuna.errors import UserError
from petra_optuna.operations.drop_blocks import DropBlocks
from petra_optuna.operations.half_precision import BFloat16, Half
from petra_optuna.operations.low_rank import LowRank
from petra_optuna.operations.prune import Prune
from petra_optuna.operations.quantize_aware import QuantizeAware
from petra_optuna.operations.quantize_dynamic import QuantizeDynamic
from petra_optuna.operations.quantize_nncf import QuantizeNncf
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.regularized_train import RegularizedTrain
from petra_optuna.operations.train import Train
from petra_optuna.pipeline import Operation, SearchSpace
from petra_optuna.runtimes import DEFAULT
from petra_optuna.runtimes import runtime as find_runtime

BODY_OPERATIONS: tuple[type[Operation], ...] = (
    LowRank,
    Prune,
    DropBlocks,
    Train,
    RegularizedTrain,
    QuantizeAware,
)
CONVERSIONS: tuple[type[Operation], ...] = (QuantizeStatic, QuantizeDynamic, Half, BFloat16)
"""Conversions that the default runtime runs."""
EVERY_OPERATION: tuple[type[Operation], ...] = (*BODY_OPERATIONS, *CONVERSIONS, QuantizeNncf)


def default_space(
    max_length: int = 5, runtime: str = DEFAULT, device: str = "cpu", *, untrained: bool = False
) -> SearchSpace:
    """Every built-in operation whose file the runtime runs as it promises.

    Args:
        max_length: Most nodes of a body.
        runtime: Name of the runtime.
        device: Name of the device that the runtime computes on.
        untrained: Whether pipelines start from initialisation.

    Raises:
        UserError: When the runtime is unknown or not installed.

    Example:
        >>> space = default_space(max_length=3)
        >>> "prune" in space.names
        True
    """
    formats = find_runtime(runtime).formats(device)
    conversions = tuple(kind for kind in EVERY_OPERATION if kind.format in formats)
    body = tuple(kind for kind in BODY_OPERATIONS if _runs(kind, formats))
    return SearchSpace(body, conversions, max_length, untrained)


def check_runs(space: SearchSpace, runtime: str, device: str = "cpu") -> None:
    """Refuse a space with a conversion, or what implies one, whose file the runtime does not run as promised.

    Raises:
        UserError: Naming it, or when the runtime is unknown or not installed, or sees no such device.
    """
    chosen = find_runtime(runtime)
    chosen.check_device(device)
    formats = chosen.formats(device)
    refused = [kind.name for kind in space.operations if not _runs(kind, formats)]
    if refused:
        raise UserError(
            f"runtime {runtime!r} on {device} does not run {', '.join(refused)} as promised; "
            f"leave them out of the space, or take `default_space(runtime={runtime!r})`"
        )


def _runs(kind: type[Operation], formats: tuple[str, ...]) -> bool:
    """Whether a file of the operation's own format, or of the conversion that it implies, is one of these."""
    return (kind.implies or kind).format in (None, *formats)
