"""The genome: operations, recipe, pipeline, search space, encoding. Does not import torch."""

from petra_optuna.pipeline.encoding import (
    decode,
    distributions,
    encode,
    present_params,
    suggest,
    suggest_value,
)
from petra_optuna.pipeline.fields import Field, Formerly, When, declared_fields
from petra_optuna.pipeline.notation import NotationWarning
from petra_optuna.pipeline.operation import (
    Applied,
    FloatLayer,
    FloatReason,
    Kind,
    Operation,
    allot,
    float_layers,
)
from petra_optuna.pipeline.pipeline import Pipeline
from petra_optuna.pipeline.priors import FieldPrior
from petra_optuna.pipeline.recipe import TRAINING_FIELDS, Recipe
from petra_optuna.pipeline.space import NO_CONVERSION, SearchSpace

__all__ = [
    "NO_CONVERSION",
    "TRAINING_FIELDS",
    "Applied",
    "Field",
    "FieldPrior",
    "FloatLayer",
    "FloatReason",
    "Formerly",
    "Kind",
    "NotationWarning",
    "Operation",
    "Pipeline",
    "Recipe",
    "SearchSpace",
    "When",
    "allot",
    "declared_fields",
    "decode",
    "distributions",
    "encode",
    "float_layers",
    "present_params",
    "suggest",
    "suggest_value",
]
