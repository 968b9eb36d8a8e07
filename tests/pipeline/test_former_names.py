"""What was stored before fields got other names is read as what it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from support.former_names import former_params

from petra_optuna.errors import PipelineError
from petra_optuna.evolution import random_pipeline
from petra_optuna.operations import DropBlocks, LowRank, Prune, QuantizeStatic, Train, default_space
from petra_optuna.pipeline import (
    FieldPrior,
    Formerly,
    Pipeline,
    Recipe,
    declared_fields,
    decode,
    distributions,
    encode,
    present_params,
)
from petra_optuna.pipeline.fields import Fielded

SPACE = default_space()
PIPELINE = Pipeline(
    (
        LowRank(rule="share", kept_weights=0.4),
        Prune(removed=0.3, criterion="taylor"),
        DropBlocks(removed=0.2),
        Train(epochs=2),
        QuantizeStatic(),
    )
)

# What the release wrote in which these fields had their first names:
DIGEST = "1e5d05b5c57a38e472a41848e83a760447b7e8cd88a49e9c873ac53e0e2f6574"
HASH = "49f655a903d6d393eb47d49b7b97d9e44e83133157636521127b32226a7ab89b"
PARAMS: dict[str, Any] = {
    "length": 4,
    "n0.op": "low_rank",
    "n0.low_rank.scope": "global",
    "n0.low_rank.rule": "share",
    "n0.low_rank.share": 0.4,
    "n1.op": "prune",
    "n1.prune.ratio": 0.3,
    "n1.prune.criterion": "taylor",
    "n1.prune.scope": "local",
    "n2.op": "drop_blocks",
    "n2.drop_blocks.share": 0.2,
    "n2.drop_blocks.criterion": "taylor",
    "n3.op": "train",
    "n3.train.epochs": 2,
    "convert.op": "static",
    "convert.static.calibration": "minmax",
    "convert.static.keep_float": 0,
    "recipe.optimizer": "adamw",
    "recipe.lr": 0.001,
    "recipe.weight_decay": 0.0005,
    "recipe.schedule": "one_cycle",
    "recipe.batch_size": 64,
    "recipe.distillation_weight": 0.5,
    "recipe.temperature": 4.0,
    "recipe.label_smoothing": 0.0,
    "recipe.clip_norm": 5.0,
}
NODES = [
    {"op": "low_rank", "scope": "global", "rule": "share", "share": 0.4},
    {"op": "prune", "ratio": 0.3, "criterion": "taylor", "scope": "local"},
    {"op": "drop_blocks", "share": 0.2, "criterion": "taylor"},
    {"op": "train", "epochs": 2},
    {"op": "static", "calibration": "minmax", "keep_float": 0},
]


def test_the_space_and_the_pipeline_are_those_of_before() -> None:
    assert SPACE.to_dict() == {
        "body": ["low_rank", "prune", "drop_blocks", "train", "regularized_train", "qat"],
        "conversions": ["static", "dynamic", "fp16", "bf16"],
        "max_length": 5,
        "fields_sha256": DIGEST,
    }
    assert PIPELINE.hash == HASH


def test_stored_parameters_are_read() -> None:
    assert decode(PARAMS, SPACE) == PIPELINE
    assert distributions(PARAMS, SPACE) == distributions(encode(PIPELINE, SPACE), SPACE)
    assert present_params(PARAMS, SPACE) == encode(PIPELINE, SPACE)
    assert former_params(encode(PIPELINE, SPACE), SPACE) == PARAMS


def test_a_stored_pipeline_is_read_and_written_with_present_names() -> None:
    read = Pipeline.from_dict({"nodes": NODES, "recipe": PIPELINE.to_dict()["recipe"]}, SPACE.operations)
    assert read == PIPELINE.canonical()
    assert [node.get("removed") for node in read.to_dict()["nodes"]] == [None, 0.3, 0.2, None, None]
    with pytest.raises(PipelineError, match="Prune has no field energy"):
        Pipeline.from_dict({"nodes": [{"op": "prune", "energy": 0.3}]}, SPACE.operations)


def test_both_sets_of_names_are_a_round_trip() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        pipeline = random_pipeline(SPACE, int(rng.integers(6)), rng)
        params = encode(pipeline, SPACE)
        assert decode(json.loads(json.dumps(former_params(params, SPACE))), SPACE) == decode(params, SPACE)
        assert present_params(former_params(params, SPACE), SPACE) == params


def test_a_stored_trial_of_an_earlier_release_is_read() -> None:
    study = optuna.create_study()
    kinds = former_params(distributions(PARAMS, SPACE), SPACE)
    study.add_trial(optuna.trial.create_trial(params=PARAMS, distributions=kinds, value=0.0))
    assert decode(study.trials[0].params, SPACE).hash == HASH


def test_a_present_name_comes_before_a_former_one() -> None:
    assert decode({**PARAMS, "n1.prune.removed": 0.7}, SPACE).nodes[1].values()["removed"] == 0.7


def test_a_prior_gets_the_present_names() -> None:
    stored = FieldPrior("low_rank", "share", 0.3, {"scope": "global", "rule": "share"})
    assert stored.in_space(SPACE) == FieldPrior("low_rank", "kept_weights", 0.3, dict(stored.when))
    assert FieldPrior("melt", "share", 0.3).in_space(SPACE).field == "share"


@dataclass(frozen=True)
class Ambiguous(Fielded):
    first: Annotated[float, FloatDistribution(0, 1)] = 0.5
    second: Annotated[float, FloatDistribution(0, 1), Formerly("oldest", "first")] = 0.5


@dataclass(frozen=True)
class TwiceRenamed(Fielded):
    kept: Annotated[float, FloatDistribution(0, 1), Formerly("part", "share")] = 0.5


def test_a_field_may_get_other_names_again_but_not_that_of_another() -> None:
    (field,) = declared_fields(TwiceRenamed)
    assert (field.first_name, field.former) == ("part", ("part", "share"))
    with pytest.raises(PipelineError, match="share a present or former name"):
        declared_fields(Ambiguous)
    assert all(field.first_name == field.name for field in declared_fields(Recipe))
