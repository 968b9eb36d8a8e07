"""The nodes of the surrogate: the declarations of the real ones, with effects on a ``Network``.

So what a study recorded can be read into the surrogate's space. Codes are in lower case and have no aliases:
those of the real operations must stay unique in a process that knows both.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from petra_optuna.pipebench.network import (
    Network,
    Setting,
    adapt,
    factorize,
    prune,
    quantize,
    regularize,
    shorten,
    store,
    train,
)
from petra_optuna.pipeline import Applied, Operation
from petra_optuna.pipeline.nodes import (
    BFloat16Node,
    DropBlocksNode,
    HalfNode,
    LowRankNode,
    PruneNode,
    QuantizeAwareNode,
    QuantizeDynamicNode,
    QuantizeStaticNode,
    RegularizedTrainNode,
    TrainNode,
)


def _applied(before: Network, after: Network) -> Applied[Network]:
    return Applied(after, {"changed": before != dataclasses.replace(after, seconds=before.seconds)})


@dataclasses.dataclass(frozen=True)
class Prune(PruneNode):
    """Fewer channels."""

    code: ClassVar[str] = "pr"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.prune``."""
        return _applied(model, prune(model, context, self.removed, self.criterion, self.scope))


@dataclasses.dataclass(frozen=True)
class LowRank(LowRankNode):
    """Low-rank factors."""

    code: ClassVar[str] = "lr"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.factorize``."""
        return _applied(model, factorize(model, context, self.scope, self.rule, self.threshold))


@dataclasses.dataclass(frozen=True)
class DropBlocks(DropBlocksNode):
    """Whole blocks less."""

    code: ClassVar[str] = "db"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.shorten``."""
        return _applied(model, shorten(model, context, self.removed, self.criterion))


@dataclasses.dataclass(frozen=True)
class Train(TrainNode):
    """Plain training."""

    code: ClassVar[str] = "tr"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.train``."""
        return _applied(model, train(model, context, "train"))


@dataclasses.dataclass(frozen=True)
class RegularizedTrain(RegularizedTrainNode):
    """Training with the recipe's regularisers."""

    code: ClassVar[str] = "reg"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.regularize``."""
        return _applied(model, regularize(model, context))


@dataclasses.dataclass(frozen=True)
class QuantizeStatic(QuantizeStaticNode):
    """INT8 weights and activations."""

    code: ClassVar[str] = "ptq"
    aliases: ClassVar[tuple[str, ...]] = ()

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.quantize``."""
        return _applied(model, quantize(model, context, self.calibration, self.percentile, self.keep_float))


@dataclasses.dataclass(frozen=True)
class QuantizeAware(QuantizeAwareNode):
    """Training under simulated INT8; a pipeline that names no conversion gets the static one."""

    code: ClassVar[str] = "qat"
    implies: ClassVar[type[Operation] | None] = QuantizeStatic

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.adapt``."""
        return _applied(model, adapt(model, context))


@dataclasses.dataclass(frozen=True)
class QuantizeDynamic(QuantizeDynamicNode):
    """Weights stored in INT8."""

    code: ClassVar[str] = "pdq"
    aliases: ClassVar[tuple[str, ...]] = ()

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.store``."""
        return _applied(model, store(model, context, "dynamic"))


@dataclasses.dataclass(frozen=True)
class Half(HalfNode):
    """Weights stored in float16."""

    code: ClassVar[str] = "fp16"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.store``."""
        return _applied(model, store(model, context, "fp16"))


@dataclasses.dataclass(frozen=True)
class BFloat16(BFloat16Node):
    """Weights stored in bfloat16."""

    code: ClassVar[str] = "bf16"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.store``."""
        return _applied(model, store(model, context, "bf16"))


BODY = (LowRank, Prune, DropBlocks, Train, RegularizedTrain, QuantizeAware)
CONVERSIONS = (QuantizeStatic, QuantizeDynamic, Half, BFloat16)
