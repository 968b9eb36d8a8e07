"""The nodes of the enumerable space: the same effects with few, discrete settings and no recipe."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from optuna.distributions import FloatDistribution, IntDistribution

from petra_optuna.pipebench import operations
from petra_optuna.pipebench.network import Network, Setting
from petra_optuna.pipeline import Applied, Kind, Operation, Recipe


@dataclasses.dataclass(frozen=True)
class CoarsePrune(Operation):
    """Fewer channels, in steps."""

    name: ClassVar[str] = "prune"
    code: ClassVar[str] = "cpr"
    kind: ClassVar[Kind] = "structure"

    removed: Annotated[float, FloatDistribution(0.2, 0.8, step=0.2)] = 0.4

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """Prune by the default criterion and scope."""
        return operations.Prune(removed=self.removed).apply(model, context)


@dataclasses.dataclass(frozen=True)
class CoarseLowRank(Operation):
    """Low-rank factors of three sizes."""

    name: ClassVar[str] = "low_rank"
    code: ClassVar[str] = "clr"
    kind: ClassVar[Kind] = "structure"

    kept_weights: Annotated[float, FloatDistribution(0.25, 0.75, step=0.25)] = 0.5

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """Factor by share, all layers together."""
        return operations.LowRank(rule="share", kept_weights=self.kept_weights).apply(model, context)


@dataclasses.dataclass(frozen=True)
class CoarseTrain(Operation):
    """Plain training of three lengths, with the default recipe."""

    name: ClassVar[str] = "train"
    code: ClassVar[str] = "ctr"
    kind: ClassVar[Kind] = "training"

    epochs: Annotated[int, IntDistribution(1, 5, step=2)] = 3

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """Train by the default recipe."""
        return operations.Train().apply(model, _plain(context))


@dataclasses.dataclass(frozen=True)
class CoarseQuantizeStatic(Operation):
    """INT8 weights and activations."""

    name: ClassVar[str] = "static"
    code: ClassVar[str] = "cptq"
    kind: ClassVar[Kind] = "conversion"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """Quantise with the default calibration."""
        return operations.QuantizeStatic().apply(model, context)


@dataclasses.dataclass(frozen=True)
class CoarseQuantizeAware(Operation):
    """Two epochs of training under simulated INT8."""

    name: ClassVar[str] = "qat"
    code: ClassVar[str] = "cqat"
    kind: ClassVar[Kind] = "training"
    implies: ClassVar[type[Operation] | None] = CoarseQuantizeStatic

    epochs: Annotated[int, IntDistribution(2, 2)] = 2

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """Train under rounding by the default recipe."""
        return operations.QuantizeAware().apply(model, _plain(context))


BODY = (CoarseLowRank, CoarsePrune, CoarseTrain, CoarseQuantizeAware)
CONVERSIONS = (CoarseQuantizeStatic, operations.QuantizeDynamic, operations.Half)


def _plain(context: Setting) -> Setting:
    return dataclasses.replace(context, recipe=Recipe())
