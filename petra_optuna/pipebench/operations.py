"""The nodes of the surrogate, with the names, fields and ranges of ``petra_optuna.operations``.

So what a study recorded can be read into the surrogate's space. Codes are in lower case: those of the
real operations must stay unique in a process that knows both.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

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
from petra_optuna.pipeline import TRAINING_FIELDS, Applied, Kind, Operation, When
from petra_optuna.pipeline.recipe import REGULARIZERS

CRITERIA = ("magnitude_l1", "magnitude_l2", "taylor", "hessian", "batch_norm", "lamp", "random")


def _applied(before: Network, after: Network) -> Applied[Network]:
    return Applied(after, {"changed": before != dataclasses.replace(after, seconds=before.seconds)})


@dataclasses.dataclass(frozen=True)
class Prune(Operation):
    """Fewer channels."""

    name: ClassVar[str] = "prune"
    code: ClassVar[str] = "pr"
    kind: ClassVar[Kind] = "structure"

    ratio: Annotated[float, FloatDistribution(0.1, 0.9)] = 0.5
    criterion: Annotated[str, CategoricalDistribution(CRITERIA)] = "magnitude_l2"
    scope: Annotated[str, CategoricalDistribution(("global", "local"))] = "local"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.prune``."""
        return _applied(model, prune(model, context, self.ratio, self.criterion, self.scope))


@dataclasses.dataclass(frozen=True)
class LowRank(Operation):
    """Low-rank factors."""

    name: ClassVar[str] = "low_rank"
    code: ClassVar[str] = "lr"
    kind: ClassVar[Kind] = "structure"

    rule: Annotated[str, CategoricalDistribution(("energy", "singular_values", "share"))] = "energy"
    energy: Annotated[float, FloatDistribution(0.5, 0.999), When("rule", ("energy",))] = 0.9
    singular_values: Annotated[float, FloatDistribution(0.2, 0.95), When("rule", ("singular_values",))] = 0.6
    share: Annotated[float, FloatDistribution(0.1, 0.9), When("rule", ("share",))] = 0.5

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.factorize``."""
        return _applied(model, factorize(model, context, self.rule, getattr(self, self.rule)))


@dataclasses.dataclass(frozen=True)
class DropBlocks(Operation):
    """Whole blocks less."""

    name: ClassVar[str] = "drop_blocks"
    code: ClassVar[str] = "db"
    kind: ClassVar[Kind] = "structure"

    share: Annotated[float, FloatDistribution(0.1, 0.6)] = 0.3
    criterion: Annotated[str, CategoricalDistribution(CRITERIA)] = "taylor"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.shorten``."""
        return _applied(model, shorten(model, context, self.share, self.criterion))


@dataclasses.dataclass(frozen=True)
class Train(Operation):
    """Plain training."""

    name: ClassVar[str] = "train"
    code: ClassVar[str] = "tr"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = TRAINING_FIELDS

    epochs: Annotated[int, IntDistribution(1, 10)] = 3

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.train``."""
        return _applied(model, train(model, context, "train"))


@dataclasses.dataclass(frozen=True)
class RegularizedTrain(Operation):
    """Training with the recipe's regularisers."""

    name: ClassVar[str] = "regularized_train"
    code: ClassVar[str] = "reg"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = (
        *TRAINING_FIELDS,
        *(field for name in REGULARIZERS for field in (name, f"lambda_{name}")),
    )

    epochs: Annotated[int, IntDistribution(1, 10)] = 3

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.regularize``."""
        return _applied(model, regularize(model, context))


@dataclasses.dataclass(frozen=True)
class QuantizeStatic(Operation):
    """INT8 weights and activations."""

    name: ClassVar[str] = "static"
    code: ClassVar[str] = "ptq"
    kind: ClassVar[Kind] = "conversion"

    calibration: Annotated[str, CategoricalDistribution(("minmax", "percentile", "entropy"))] = "minmax"
    percentile: Annotated[
        float, CategoricalDistribution((99.9, 99.99, 99.999)), When("calibration", ("percentile",))
    ] = 99.99
    keep_float: Annotated[int, IntDistribution(0, 4)] = 0

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.quantize``."""
        return _applied(model, quantize(model, context, self.calibration, self.percentile, self.keep_float))


@dataclasses.dataclass(frozen=True)
class QuantizeAware(Operation):
    """Training under simulated INT8; a pipeline that names no conversion gets the static one."""

    name: ClassVar[str] = "qat"
    code: ClassVar[str] = "qat"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = TRAINING_FIELDS
    implies: ClassVar[type[Operation] | None] = QuantizeStatic

    epochs: Annotated[int, IntDistribution(1, 5)] = 2

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.adapt``."""
        return _applied(model, adapt(model, context))


@dataclasses.dataclass(frozen=True)
class QuantizeDynamic(Operation):
    """Weights stored in INT8."""

    name: ClassVar[str] = "dynamic"
    code: ClassVar[str] = "pdq"
    kind: ClassVar[Kind] = "conversion"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.store``."""
        return _applied(model, store(model, context, "dynamic"))


@dataclasses.dataclass(frozen=True)
class Half(Operation):
    """Weights stored in float16."""

    name: ClassVar[str] = "fp16"
    code: ClassVar[str] = "fp16"
    kind: ClassVar[Kind] = "conversion"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.store``."""
        return _applied(model, store(model, context, "fp16"))


@dataclasses.dataclass(frozen=True)
class BFloat16(Operation):
    """Weights stored in bfloat16."""

    name: ClassVar[str] = "bf16"
    code: ClassVar[str] = "bf16"
    kind: ClassVar[Kind] = "conversion"

    def apply(self, model: Network, context: Setting) -> Applied[Network]:
        """See ``network.store``."""
        return _applied(model, store(model, context, "bf16"))


BODY = (LowRank, Prune, DropBlocks, Train, RegularizedTrain, QuantizeAware)
CONVERSIONS = (QuantizeStatic, QuantizeDynamic, Half, BFloat16)
