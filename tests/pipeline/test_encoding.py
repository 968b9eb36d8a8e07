from __future__ import annotations

import json

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial
from support.toy_space import FREE, IMPLYING, UNTRAINED, Cut, Fit, Fold, Pack, Polish, Warm

from petra_optuna.errors import PipelineError
from petra_optuna.evolution import random_pipeline
from petra_optuna.pipeline import Pipeline, Recipe, SearchSpace, decode, distributions, encode, suggest


@pytest.mark.parametrize("space", [FREE, IMPLYING, UNTRAINED], ids=["free", "implying", "untrained"])
def test_encoding_is_a_round_trip_for_thousands_of_pipelines(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    hashes = set()
    for _ in range(2000):
        pipeline = random_pipeline(space, int(rng.integers(space.max_length + 1)), rng)
        params = encode(pipeline, space)
        back = decode(params, space)
        assert back.hash == pipeline.hash
        assert back.nodes == pipeline.nodes
        assert encode(back, space) == params
        assert decode(json.loads(json.dumps(params)), space) == back
        hashes.add(pipeline.hash)
    assert len(hashes) > 1500


def test_suggest_asks_exactly_for_what_encode_gives_in_the_same_order() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        pipeline = random_pipeline(IMPLYING, int(rng.integers(IMPLYING.max_length + 1)), rng)
        params = encode(pipeline, IMPLYING)
        trial = FixedTrial(params)
        assert suggest(trial, IMPLYING).hash == pipeline.hash
        assert list(trial.params) == list(params) == list(distributions(params, IMPLYING))
        assert trial.distributions == distributions(params, IMPLYING)


def test_a_whole_number_in_a_continuous_field_is_encoded_as_the_float() -> None:
    params = encode(Pipeline((Fit(),), Recipe(temperature=2)), FREE)
    assert isinstance(params["recipe.temperature"], float)


@pytest.mark.parametrize("space", [FREE, UNTRAINED], ids=["free", "untrained"])
@pytest.mark.parametrize("make", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
def test_whatever_a_sampler_draws_decodes_to_the_pipeline_that_suggest_gave(
    make: type[optuna.samplers.RandomSampler], space: SearchSpace
) -> None:
    study = optuna.create_study(sampler=make(seed=0), direction="maximize")
    found: list[Pipeline] = []

    def keep(trial: optuna.Trial) -> float:
        found.append(suggest(trial, space))
        return float(len(found[-1].nodes))

    study.optimize(keep, n_trials=40)
    assert [decode(trial.params, space) for trial in study.trials] == found
    assert len({pipeline.hash for pipeline in found}) > 30
    firsts = {type(pipeline.body[0]) if pipeline.body else None for pipeline in found}
    assert (firsts == {Fit, Warm}) is space.untrained


def test_names_are_those_of_the_design() -> None:
    pipeline = Pipeline((Fold(rule="rank"), Fit(), Pack()))
    assert list(encode(pipeline, FREE)) == [
        "length",
        "n0.op",
        "n0.fold.rule",
        "n0.fold.rank",
        "n1.op",
        "n1.fit.epochs",
        "convert.op",
        "convert.pack.bits",
        "recipe.optimizer",
        "recipe.lr",
        "recipe.weight_decay",
        "recipe.schedule",
        "recipe.batch_size",
        "recipe.distillation_weight",
        "recipe.temperature",
        "recipe.label_smoothing",
        "recipe.clip_norm",
    ]


def test_the_recipe_is_asked_for_only_where_a_node_reads_it() -> None:
    assert [name for name in encode(Pipeline((Cut(),)), FREE) if name.startswith("recipe")] == []
    named = [name for name in encode(Pipeline((Fit(), Polish())), IMPLYING) if name.startswith("recipe")]
    assert named[-1] == "recipe.lambda_hoyer"
    assert "recipe.lambda_orthogonal" not in named


def test_decode_ignores_what_no_node_reads_and_names_what_is_missing() -> None:
    params = encode(Pipeline((Cut(),)), FREE)
    assert decode({**params, "n3.op": "fit", "recipe.lr": 1.0}, FREE) == Pipeline((Cut(),))
    del params["n0.cut.ratio"]
    with pytest.raises(PipelineError, match=r"'n0\.cut\.ratio' is missing"):
        decode(params, FREE)


def test_decode_refuses_a_value_outside_its_range_and_an_unknown_operation() -> None:
    params = encode(Pipeline((Cut(),)), FREE)
    with pytest.raises(PipelineError, match=r"Cut\.ratio must be in \[0\.1, 0\.9\], got 2\.0"):
        decode({**params, "n0.cut.ratio": 2.0}, FREE)
    with pytest.raises(PipelineError, match="unknown operation 'melt'"):
        decode({**params, "n0.op": "melt"}, FREE)
    with pytest.raises(PipelineError, match="unknown operation 'cut'; node 0 may be fit, warm"):
        decode(params, UNTRAINED)


def test_encode_refuses_a_pipeline_of_another_space() -> None:
    with pytest.raises(PipelineError, match="polish is not in this space"):
        encode(Pipeline((Polish(),)), FREE)
    with pytest.raises(PipelineError, match="5 nodes, at most 4"):
        encode(Pipeline((Cut(),) * 5), FREE)
