"""The surrogate's network, and the effect of each operation on it as a pure function.

A network is described against the original. Its loss is a sum: ``damage``, which training brings back,
what training itself leaves behind (``settled``), what rounding costs, and what too few weights cost, which
nothing brings back. Quality falls from the original's towards chance by the exponential of that sum::

    quality = chance + (original - chance) * exp(-loss)

All coefficients are positive and have names of the form ``operation.effect``.
"""

from __future__ import annotations

import dataclasses
import math

from petra_optuna.errors import OperationFailed, TrainingDiverged
from petra_optuna.pipebench.coefficients import Coefficients
from petra_optuna.pipeline import Recipe

BATCH = 64
"""The batch size at which training has its plain speed."""

FP32 = "fp32"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, or the file it became; shares are of the original.

    Attributes:
        width: Share of the channels that is left.
        rank: Share of its weights that a factored layer has; 1 where nothing is factored.
        blocks: Share of the residual blocks that is left.
        parameters, macs: Shares of the weights and of the multiply-accumulates that are left.
        damage: Loss that training may bring back.
        age: Epochs since the damage was done; later ones bring less back.
        settled: Loss that the last steps of a training leave.
        trained: Improvement of further training on the original, as a share of the most there is.
        spectrum: Concentration of the singular values by training, in [0, 1].
        sparsity: Share to which training has made channels dispensable, in [0, 1].
        robustness: Share of the rounding loss that training has taken away, in [0, 1].
        precision: Name of the file's precision.
        float_share: Share of the weights that a conversion leaves in float.
        rounding: Loss that the conversion causes.
        seconds: Seconds spent so far.
    """

    width: float = 1.0
    rank: float = 1.0
    blocks: float = 1.0
    parameters: float = 1.0
    macs: float = 1.0
    damage: float = 0.0
    age: float = 0.0
    settled: float = 0.0
    trained: float = 0.0
    spectrum: float = 0.0
    sparsity: float = 0.0
    robustness: float = 0.0
    precision: str = FP32
    float_share: float = 0.0
    rounding: float = 0.0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """Everything that a node may know besides the network.

    Attributes:
        coefficients: Numbers of the surrogate.
        recipe: Model-level parameters.
        epochs: Most epochs that the node may spend.
    """

    coefficients: Coefficients
    recipe: Recipe = Recipe()
    epochs: int = 0


def prune(network: Network, setting: Setting, removed: float, criterion: str, scope: str) -> Network:
    """Remove channels. A narrow network loses more by the same cut; factors shrink on one side only."""
    c = setting.coefficients
    width = max(network.width * (1 - removed), min(c["narrowest"], network.width))
    kept = width / network.width
    sides = c["prune.on_factors"] if network.rank < 1 else 1.0
    damage = c["prune.damage"] * c[f"prune.criterion.{criterion}"] * c[f"prune.scope.{scope}"]
    damage *= _growth(network.width, width, c["prune.power"])
    damage *= math.exp(-c["prune.sparsity"] * network.sparsity)
    return dataclasses.replace(
        _with_damage(network, damage),
        width=width,
        parameters=network.parameters * kept ** (sides * c[f"prune.parameters.{scope}"]),
        macs=network.macs * kept ** (sides * c[f"prune.macs.{scope}"]),
        robustness=network.robustness * kept,
        seconds=network.seconds + c["seconds.structure"] * c[f"seconds.criterion.{criterion}"],
    )


def factorize(network: Network, setting: Setting, scope: str, rule: str, threshold: float) -> Network:
    """Put low-rank factors where they save weights. Narrow networks have flat spectra, so they lose more.

    Concentrated spectra lower both the loss and the rank that a share of the spectrum asks for. Where the
    singular values of all layers compete (``global``), hardly anything is lost; the layers that shrink have
    many weights and few positions, so weights go faster than arithmetic.
    """
    c = setting.coefficients
    share = min(c[f"low_rank.share.{rule}"] * threshold ** c[f"low_rank.curve.{rule}"], 1.0)
    if rule != "share":
        share **= 1 + c["low_rank.spectrum"] * network.spectrum
    seconds = network.seconds + c["seconds.low_rank"]
    if share >= network.rank:
        return dataclasses.replace(network, seconds=seconds)
    kept = share / network.rank
    damage = c["low_rank.damage"] * c[f"low_rank.scope.{scope}"]
    damage *= _growth(network.rank, share, c["low_rank.power"])
    damage *= network.width ** -c["low_rank.fragility"] * math.exp(-c["low_rank.relief"] * network.spectrum)
    return dataclasses.replace(
        _with_damage(network, damage),
        rank=share,
        parameters=network.parameters * kept ** c[f"low_rank.parameters.{scope}"],
        macs=network.macs * kept ** c[f"low_rank.macs.{scope}"],
        robustness=network.robustness * kept,
        seconds=seconds,
    )


def shorten(network: Network, setting: Setting, removed: float, criterion: str) -> Network:
    """Remove whole blocks, at least one.

    Raises:
        OperationFailed: When only one block is left.
    """
    c = setting.coefficients
    before = round(network.blocks * c["blocks"])
    if before <= 1:
        raise OperationFailed("drop_blocks: no block is left that can be dropped")
    dropped = min(max(1, round(removed * before)), before - 1)
    gone = dropped / c["blocks"]
    left = (before - dropped) / c["blocks"]
    damage = c["drop_blocks.damage"] * c[f"drop_blocks.criterion.{criterion}"]
    damage *= _growth(network.blocks, left, c["drop_blocks.power"])
    return dataclasses.replace(
        _with_damage(network, damage),
        blocks=left,
        parameters=network.parameters * math.exp(-c["drop_blocks.parameters"] * gone),
        macs=network.macs * math.exp(-c["drop_blocks.macs"] * gone),
        seconds=network.seconds + c["seconds.structure"] * c[f"seconds.criterion.{criterion}"],
    )


def train(network: Network, setting: Setting, node: str, speed: float = 1.0) -> Network:
    """Training brings damage back, less with every further epoch, and shakes what was well.

    The shock of the learning rate comes first and is trained away with the rest, so more epochs never
    hurt. Plain training forgets the robustness against rounding.

    Args:
        network: The network before the training.
        setting: Coefficients, recipe and the epochs to spend.
        node: Name of the node, which decides the time: ``train``, ``regularized_train`` or ``qat``.
        speed: Factor on the loss that an epoch brings back.

    Raises:
        TrainingDiverged: When the learning rate is too far above the optimiser's best.
    """
    c, recipe, epochs = setting.coefficients, setting.recipe, setting.epochs
    if epochs <= 0:
        return network
    offset = math.log10(recipe.lr / c[f"train.lr.{recipe.optimizer}"])
    if offset > c["train.divergence"]:
        raise TrainingDiverged(f"{node}: the loss diverged at learning rate {recipe.lr:.3g}")
    speed *= (
        math.exp(-((offset / c["train.lr_width"]) ** 2)) * (BATCH / recipe.batch_size) ** c["train.batch"]
    )
    speed *= 1 + c["train.distillation"] * recipe.distillation_weight
    power = c["train.diminishing"]
    left = math.exp(-c["train.recovery"] * speed * ((network.age + epochs) ** power - network.age**power))
    shock = c["train.shock"] * 10 ** (c["train.shock_power"] * offset)
    distilled = 1 + c["seconds.distillation"] * (recipe.distillation_weight > 0)
    fixed = c["seconds.epoch_fixed"]
    pace = (fixed + network.macs) / (1 + fixed)
    return dataclasses.replace(
        network,
        age=network.age + epochs,
        damage=(network.damage + shock) * left,
        settled=max(network.settled, c[f"train.settled.{recipe.schedule}"]),
        trained=1 - (1 - network.trained) * left,
        robustness=network.robustness * math.exp(-c["train.forgetting"] * epochs),
        seconds=network.seconds + epochs * c["seconds.epoch"] * c[f"seconds.{node}"] * distilled * pace,
    )


def regularize(network: Network, setting: Setting) -> Network:
    """Training with the terms that the recipe switches on; each has a best weight.

    Raises:
        TrainingDiverged: When the learning rate is too far above the optimiser's best.
    """
    c, recipe, epochs = setting.coefficients, setting.recipe, setting.epochs
    spectrum = _pull(recipe.orthogonal, recipe.lambda_orthogonal, c["regularize.lambda_orthogonal"])
    spectrum += _pull(recipe.hoyer, recipe.lambda_hoyer, c["regularize.lambda_hoyer"])
    sparsity = _pull(recipe.sparsity, recipe.lambda_sparsity, c["regularize.lambda_sparsity"])
    norm = _pull(recipe.norm, recipe.lambda_norm, c["regularize.lambda_norm"])
    lai = 1 + c["regularize.lai"] * _pull(recipe.lai, recipe.lambda_lai, c["regularize.lambda_lai"])
    trained = train(network, setting, "regularized_train", lai / (1 + c["regularize.burden"]))
    return dataclasses.replace(
        trained,
        spectrum=_towards_one(trained.spectrum, c["regularize.spectrum"] * spectrum * epochs),
        sparsity=_towards_one(trained.sparsity, c["regularize.sparsity"] * sparsity * epochs),
        robustness=_towards_one(trained.robustness, c["regularize.norm"] * norm * epochs),
    )


def adapt(network: Network, setting: Setting) -> Network:
    """Training under simulated rounding: slower, and the network learns to bear it.

    Raises:
        TrainingDiverged: When the learning rate is too far above the optimiser's best.
    """
    c = setting.coefficients
    trained = train(network, setting, "qat", 1 / (1 + c["qat.burden"]))
    robustness = _towards_one(network.robustness, c["qat.robustness"] * setting.epochs)
    return dataclasses.replace(trained, robustness=robustness)


def quantize(network: Network, setting: Setting, calibration: str, percentile: float, keep: int) -> Network:
    """Static INT8: costs more in narrow networks, less after training for it or with layers in float."""
    c = setting.coefficients
    rounding = c["static.damage"] * c[f"static.calibration.{calibration}"]
    if calibration == "percentile":
        rounding *= 1 + c["static.percentile"] * abs(math.log10(100 - percentile) + 2)
    rounding *= network.width ** -c["static.fragility"]
    rounding *= math.exp(-c["static.robustness"] * network.robustness - c["static.keep_float"] * keep)
    return dataclasses.replace(
        network,
        precision="static",
        rounding=rounding,
        float_share=1 - math.exp(-c["static.float_share"] * keep),
        seconds=network.seconds + c["seconds.calibration"],
    )


def store(network: Network, setting: Setting, precision: str) -> Network:
    """Weights in fewer bits, arithmetic in float: ``dynamic``, ``fp16`` or ``bf16``."""
    return dataclasses.replace(
        network, precision=precision, rounding=setting.coefficients[f"{precision}.damage"]
    )


def quality(network: Network, c: Coefficients) -> float:
    """Between chance and 1."""
    capacity = c["capacity.damage"] * (-math.log(min(network.parameters, 1.0))) ** c["capacity.power"]
    loss = network.damage + network.settled + network.rounding + capacity
    loss -= c["train.gain"] * network.trained
    reached: float = c["chance"] + (c["quality"] - c["chance"]) * math.exp(-loss)
    return min(reached, 1.0)


def latency_ms(network: Network, c: Coefficients) -> float:
    """A share that does not shrink, and one that follows the arithmetic; factors add calls."""
    work = network.macs ** c["latency.power"]
    fixed = c["latency.fixed.fp32"]
    plain: float = (fixed + work) / (1 + fixed)
    if network.precision != FP32:
        converted = c[f"latency.fixed.{network.precision}"] + c[f"latency.work.{network.precision}"] * work
        plain = network.float_share * plain + (1 - network.float_share) * converted
    return c["latency_ms"] * (plain + c["latency.factors"] * (network.rank < 1))


def size_bytes(network: Network, c: Coefficients) -> float:
    """Graph and weights; a conversion shortens the weights and may lengthen the graph."""
    graph = c["size.graph"]
    plain = (graph + network.parameters) / (1 + graph)
    if network.precision != FP32:
        converted = c[f"size.graph.{network.precision}"] + (
            c[f"size.weights.{network.precision}"] * network.parameters
        )
        plain = network.float_share * plain + (1 - network.float_share) * converted
    return c["size_bytes"] * (plain + c["size.factors"] * (network.rank < 1))


def _growth(before: float, after: float, power: float) -> float:
    """Loss that a cut adds where loss grows with the logarithm of all that is gone.

    Two cuts without training between them cost what one of the same size does.
    """
    gone_before, gone_after = -math.log(before), -math.log(after)
    return float(gone_after**power - gone_before**power)


def _with_damage(network: Network, damage: float) -> Network:
    """The network with more damage, its training young again as far as the damage is new."""
    total = network.damage + damage
    age = network.age * network.damage / total if total > 0 else network.age
    return dataclasses.replace(network, damage=total, age=age)


def _pull(on: bool, weight: float, best: float) -> float:
    """Strength of a term of the loss: 1 at its best weight, less by orders of magnitude beside it."""
    return math.exp(-(math.log10(weight / best) ** 2)) if on else 0.0


def _towards_one(share: float, rate: float) -> float:
    return 1 - (1 - share) * math.exp(-rate)
