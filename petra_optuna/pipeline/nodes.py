"""What every built-in operation is: its name, its code, and its fields, each declared once. Without torch.

``operations`` subclasses these declarations with what a node does to a model, ``pipebench.operations`` with
what it does to the surrogate. So both have the same fields, and what one recorded the other can read. Here a
conversion is implied by none: a subclass of ``QuantizeAwareNode`` names the static conversion of its family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from petra_optuna.pipeline.fields import Formerly, When
from petra_optuna.pipeline.operation import Kind, Operation
from petra_optuna.pipeline.recipe import REGULARIZERS, TRAINING_FIELDS

Criterion = Literal["magnitude_l1", "magnitude_l2", "taylor", "hessian", "batch_norm", "lamp", "random"]
Scope = Literal["global", "local"]
RankRule = Literal["energy", "singular_values", "share"]
Calibration = Literal["minmax", "percentile", "entropy"]
Preset = Literal["performance", "mixed"]

KEPT_BY_RULE: Mapping[RankRule, str] = {
    "energy": "kept_energy",
    "singular_values": "kept_singular_values",
    "share": "kept_weights",
}
"""Field of low rank that counts, by its rule: the choices of a rule are stored and keep their names."""

_CRITERION = CategoricalDistribution(get_args(Criterion))
_SCOPE = CategoricalDistribution(get_args(Scope))


@dataclasses.dataclass(frozen=True)
class LowRankNode(Operation):
    """Low-rank factors in the place of layers.

    Attributes:
        scope: ``global`` lets the singular values of all layers compete for weights, ``local`` asks the same
            of each layer.
        rule: Measure by which ranks are chosen.
        kept_energy: Share of the squared singular values that is kept (explained variance), ``global`` on
            average.
        kept_singular_values: Share of the singular values that is kept, ``global`` on average.
        kept_weights: Share of the weights that is kept; ``local`` a share of mn / (m + n), the largest rank
            that saves weights.
    """

    name: ClassVar[str] = "low_rank"
    code: ClassVar[str] = "LR"
    kind: ClassVar[Kind] = "structure"

    scope: Annotated[Scope, _SCOPE] = "global"
    rule: Annotated[RankRule, CategoricalDistribution(get_args(RankRule))] = "energy"
    kept_energy: Annotated[
        float, FloatDistribution(0.5, 0.999), When("rule", ("energy",)), Formerly("energy")
    ] = 0.9
    kept_singular_values: Annotated[
        float, FloatDistribution(0.2, 0.95), When("rule", ("singular_values",)), Formerly("singular_values")
    ] = 0.6
    kept_weights: Annotated[
        float, FloatDistribution(0.1, 0.9), When("rule", ("share",)), Formerly("share")
    ] = 0.5

    @property
    def shape_follows_weights(self) -> bool:
        """True: ranks follow the spectra, and so does the way in which a convolution is split."""
        return True

    @property
    def threshold(self) -> float:
        """The share that the rule keeps: the value of its field."""
        value: float = getattr(self, KEPT_BY_RULE[self.rule])
        return value


@dataclasses.dataclass(frozen=True)
class PruneNode(Operation):
    """Fewer channels and attention heads.

    Attributes:
        removed: Share of the channels that is removed, the features of heads included.
        criterion: Measure by which a channel is unimportant.
        scope: ``global`` ranks the channels of all layers together, ``local`` those of each layer.
    """

    name: ClassVar[str] = "prune"
    code: ClassVar[str] = "Pr"
    kind: ClassVar[Kind] = "structure"

    removed: Annotated[float, FloatDistribution(0.1, 0.9), Formerly("ratio")] = 0.5
    criterion: Annotated[Criterion, _CRITERION] = "magnitude_l2"
    scope: Annotated[Scope, _SCOPE] = "local"

    @property
    def shape_follows_weights(self) -> bool:
        """Whether layers compete: then their weights decide which of them shrink."""
        return self.scope == "global"


@dataclasses.dataclass(frozen=True)
class DropBlocksNode(Operation):
    """Fewer residual blocks, or layers that map a shape onto itself.

    Attributes:
        removed: Share of the blocks that is removed, at least one of them.
        criterion: Measure by which a block is unimportant.
    """

    name: ClassVar[str] = "drop_blocks"
    code: ClassVar[str] = "DB"
    kind: ClassVar[Kind] = "structure"

    removed: Annotated[float, FloatDistribution(0.1, 0.6), Formerly("share")] = 0.3
    criterion: Annotated[Criterion, _CRITERION] = "taylor"

    @property
    def shape_follows_weights(self) -> bool:
        """True: the weights decide which blocks go, and blocks differ in size."""
        return True


@dataclasses.dataclass(frozen=True)
class TrainNode(Operation):
    """Training of all weights by the recipe.

    Attributes:
        epochs: Epochs that the node asks for; it gets them while the budget lasts.
    """

    name: ClassVar[str] = "train"
    code: ClassVar[str] = "Tr"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = TRAINING_FIELDS
    from_initialisation: ClassVar[bool] = True

    epochs: Annotated[int, IntDistribution(1, 10)] = 3


@dataclasses.dataclass(frozen=True)
class RegularizedTrainNode(Operation):
    """Training with the regularisers that the recipe switches on.

    Attributes:
        epochs: Epochs that the node asks for; it gets them while the budget lasts.
    """

    name: ClassVar[str] = "regularized_train"
    code: ClassVar[str] = "Reg"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = (
        *TRAINING_FIELDS,
        *(field for name in REGULARIZERS for field in (name, f"lambda_{name}")),
    )
    from_initialisation: ClassVar[bool] = True

    epochs: Annotated[int, IntDistribution(1, 10)] = 3


@dataclasses.dataclass(frozen=True)
class QuantizeAwareNode(Operation):
    """Training under simulated INT8; a subclass implies the static conversion of its family.

    A pipeline cannot start from initialisation with it: ranges begin where the model is before the node, and
    follow too slowly from there.

    Attributes:
        epochs: Epochs that the node asks for; it gets them while the budget lasts.
    """

    name: ClassVar[str] = "qat"
    code: ClassVar[str] = "QAT"
    kind: ClassVar[Kind] = "training"
    recipe_fields: ClassVar[tuple[str, ...]] = TRAINING_FIELDS

    epochs: Annotated[int, IntDistribution(1, 5)] = 2


@dataclasses.dataclass(frozen=True)
class QuantizeStaticNode(Operation):
    """INT8 weights and activations, with ranges from calibration samples.

    Attributes:
        calibration: Rule by which ranges follow from the samples: their extremes, their percentiles, or the
            range of least relative entropy (arXiv 2004.09602, section 3.3).
        percentile: Share of the values, in percent, that the range holds.
        keep_float: Most weighted layers that stay in float: those that cost most, measured on the output for
            one calibration batch. One layer at least is quantised.
    """

    name: ClassVar[str] = "static"
    code: ClassVar[str] = "PTQ"
    aliases: ClassVar[tuple[str, ...]] = ("QS",)
    kind: ClassVar[Kind] = "conversion"
    weight_bytes: ClassVar[float] = 1.0
    can_repair: ClassVar[bool] = True
    format: ClassVar[str | None] = "int8_static"

    calibration: Annotated[Calibration, CategoricalDistribution(get_args(Calibration))] = "minmax"
    percentile: Annotated[
        float, CategoricalDistribution((99.9, 99.99, 99.999)), When("calibration", ("percentile",))
    ] = 99.99
    keep_float: Annotated[int, IntDistribution(0, 4)] = 0


@dataclasses.dataclass(frozen=True)
class QuantizeDynamicNode(Operation):
    """INT8 weights; activations are rounded while the file runs."""

    name: ClassVar[str] = "dynamic"
    code: ClassVar[str] = "PDQ"
    aliases: ClassVar[tuple[str, ...]] = ("QD",)
    kind: ClassVar[Kind] = "conversion"
    weight_bytes: ClassVar[float] = 1.0
    format: ClassVar[str | None] = "int8_dynamic"


@dataclasses.dataclass(frozen=True)
class QuantizeNncfNode(Operation):
    """Static INT8 by NNCF's rules of where to round.

    Attributes:
        preset: ``performance`` rounds activations symmetrically, ``mixed`` those that have negative values
            asymmetrically.
    """

    name: ClassVar[str] = "nncf"
    code: ClassVar[str] = "NQ"
    kind: ClassVar[Kind] = "conversion"
    weight_bytes: ClassVar[float] = 1.0
    format: ClassVar[str | None] = "int8_nncf"

    preset: Annotated[Preset, CategoricalDistribution(get_args(Preset))] = "performance"


@dataclasses.dataclass(frozen=True)
class HalfNode(Operation):
    """Weights and arithmetic in float16."""

    name: ClassVar[str] = "fp16"
    code: ClassVar[str] = "FP16"
    kind: ClassVar[Kind] = "conversion"
    weight_bytes: ClassVar[float] = 2.0
    format: ClassVar[str | None] = "float16"


@dataclasses.dataclass(frozen=True)
class BFloat16Node(Operation):
    """Weights stored in bfloat16."""

    name: ClassVar[str] = "bf16"
    code: ClassVar[str] = "BF16"
    kind: ClassVar[Kind] = "conversion"
    weight_bytes: ClassVar[float] = 2.0
    format: ClassVar[str | None] = "bfloat16"
