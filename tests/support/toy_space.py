"""Toy operations and a deterministic two-objective landscape over them, for tests without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from petra_optuna.pipeline import TRAINING_FIELDS, Applied, Operation, Pipeline, SearchSpace, When, suggest


@dataclass(frozen=True)
class Toy(Operation):
    def apply(self, model: Any, context: Any) -> Applied[Any]:
        raise NotImplementedError("toy operations are never applied")


@dataclass(frozen=True)
class Cut(Toy):
    name = "cut"
    code = "Ct"
    kind = "structure"
    ratio: Annotated[float, FloatDistribution(0.1, 0.9)] = 0.5
    grain: Annotated[int, IntDistribution(1, 64, log=True)] = 8
    width: Annotated[int, IntDistribution(3, 15, step=4)] = 7
    share: Annotated[float, FloatDistribution(0.0, 1.0, step=0.25)] = 0.5


@dataclass(frozen=True)
class Fold(Toy):
    """``slack`` hangs on ``energy``, which hangs on ``rule``: a chain of conditions."""

    name = "fold"
    code = "Fd"
    kind = "structure"
    rule: Annotated[str, CategoricalDistribution(("energy", "rank"))] = "energy"
    energy: Annotated[str, CategoricalDistribution(("tight", "loose")), When("rule", ("energy",))] = "loose"
    slack: Annotated[float, FloatDistribution(1e-4, 1.0, log=True), When("energy", ("loose",))] = 0.1
    rank: Annotated[int, IntDistribution(1, 9), When("rule", ("rank",))] = 4


@dataclass(frozen=True)
class Fit(Toy):
    name = "fit"
    code = "Ft"
    kind = "training"
    recipe_fields = TRAINING_FIELDS
    from_initialisation = True
    epochs: Annotated[int, IntDistribution(1, 10)] = 3


@dataclass(frozen=True)
class Warm(Toy):
    name = "warm"
    code = "Wm"
    kind = "training"
    from_initialisation = True
    epochs: Annotated[int, IntDistribution(1, 3)] = 1


@dataclass(frozen=True)
class Pack(Toy):
    name = "pack"
    code = "Pk"
    aliases = ("Pz",)
    kind = "conversion"
    bits: Annotated[int, CategoricalDistribution((4, 8))] = 8


@dataclass(frozen=True)
class Squash(Toy):
    name = "squash"
    code = "Sq"
    kind = "conversion"


@dataclass(frozen=True)
class Polish(Toy):
    """Reads a part of the recipe and packs the file unless another conversion is named."""

    name = "polish"
    code = "Po"
    kind = "training"
    recipe_fields = ("lr", "hoyer", "lambda_hoyer")
    implies = Pack
    epochs: Annotated[int, IntDistribution(1, 5)] = 1


FREE = SearchSpace(body=(Cut, Fold, Fit), conversions=(Pack, Squash), max_length=4)
IMPLYING = SearchSpace(body=(Cut, Fold, Fit, Polish), conversions=(Pack, Squash), max_length=5)
UNTRAINED = SearchSpace(
    body=(Cut, Fold, Fit, Warm, Polish), conversions=(Pack, Squash), max_length=5, untrained=True
)
DIRECTIONS = ("maximize", "minimize")
ORIGINAL = (0.95, 100.0)
BOUNDS = {"reference": list(ORIGINAL), "log": [False, True]}


def landscape(pipeline: Pipeline) -> tuple[float, float]:
    """(quality, size) of a pipeline: cutting costs quality, fitting afterwards brings some of it back."""
    quality, size = ORIGINAL
    for node in pipeline.nodes:
        if isinstance(node, Cut):
            quality -= 0.3 * node.ratio
            size *= 1 - 0.9 * node.ratio
        elif isinstance(node, Fold):
            quality -= 0.05
            size *= 0.6
        elif isinstance(node, Fit):
            near = 1 / (1 + abs(math.log10(pipeline.recipe.lr / 1e-3)))
            quality += (ORIGINAL[0] - quality) * near * (1 - 0.5**node.epochs)
        elif isinstance(node, Pack):
            quality -= 0.16 / node.bits
            size *= node.bits / 32
        else:
            size *= 0.5
    return quality, size


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """The landscape as an Optuna objective over ``FREE``."""
    return landscape(suggest(trial, FREE))
