from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.toy_space import FREE, IMPLYING, UNTRAINED, Cut, Fit, Fold, Pack, Polish, Squash

from petra_optuna.errors import PipelineError
from petra_optuna.evolution import random_pipeline
from petra_optuna.pipeline import NotationWarning, Pipeline, Recipe, SearchSpace

ALL = IMPLYING.operations


def test_notation_is_a_round_trip() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = random_pipeline(IMPLYING, int(rng.integers(6)), rng).notation
        assert Pipeline.from_notation(text, ALL).notation == text
    assert Pipeline.from_notation("Fd-Ft-Ct-Pk", ALL).nodes == (Fold(), Fit(), Cut(), Pack())
    assert Pipeline().notation == "original"


def test_notation_reads_aliases_and_writes_codes() -> None:
    assert Pipeline.from_notation("Ct-Pz", ALL).notation == "Ct-Pk"


def test_a_conversion_in_the_middle_is_dropped_or_moved_and_said() -> None:
    with pytest.warns(NotationWarning, match="read as Fd-Ct-Ft-Sq"):
        moved = Pipeline.from_notation("Fd-Pk-Ct-Sq-Ft", ALL)
    assert moved.nodes == (Fold(), Cut(), Fit(), Squash())


def test_an_unknown_or_ambiguous_code_is_named() -> None:
    with pytest.raises(PipelineError, match="unknown code 'Xx' in notation 'Ct-Xx'"):
        Pipeline.from_notation("Ct-Xx", ALL)
    with pytest.raises(PipelineError, match=r"code 'Ct' .* names"):
        Pipeline.from_notation(
            "Ct", [Cut, dataclasses.make_dataclass("Other", [], bases=(Cut,), frozen=True)]
        )


def test_a_conversion_must_stand_last() -> None:
    with pytest.raises(PipelineError, match="must be the last node"):
        Pipeline((Pack(), Cut()))


def test_dictionaries_are_a_round_trip_of_the_canonical_form() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        pipeline = random_pipeline(IMPLYING, int(rng.integers(6)), rng)
        data = json.loads(json.dumps(pipeline.to_dict()))
        assert Pipeline.from_dict(data, ALL) == pipeline.canonical()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"nodes": [{"op": "melt"}]}, "unknown operation 'melt'"),
        ({"nodes": [{"op": "cut", "depth": 3}]}, "Cut has no field depth"),
        ({"nodes": [], "recipe": {"momentum": 0.9}}, "Recipe has no field momentum"),
    ],
)
def test_an_unknown_name_in_a_dictionary_is_refused(data: dict[str, object], reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        Pipeline.from_dict(data, ALL)


SAME = [
    (
        "a field that does not count",
        Pipeline((Fold(rule="rank", slack=0.7),)),
        Pipeline((Fold(rule="rank"),)),
    ),
    ("a recipe that no node reads", Pipeline((Cut(),), Recipe(lr=0.05)), Pipeline((Cut(),))),
    ("a part of the recipe", Pipeline((Fit(),), Recipe(lambda_hoyer=3.0)), Pipeline((Fit(),))),
    ("an implied conversion", Pipeline((Fit(), Polish())), Pipeline((Fit(), Polish(), Pack()))),
    (
        "an integer float",
        Pipeline((Fit(),), Recipe(temperature=2)),
        Pipeline((Fit(),), Recipe(temperature=2.0)),
    ),
]
DIFFERENT = [
    ("order", Pipeline((Cut(), Fold())), Pipeline((Fold(), Cut()))),
    ("a field", Pipeline((Cut(ratio=0.5),)), Pipeline((Cut(ratio=0.6),))),
    ("a recipe that is read", Pipeline((Fit(),), Recipe(lr=0.05)), Pipeline((Fit(),))),
    (
        "another conversion than the implied",
        Pipeline((Fit(), Polish(), Squash())),
        Pipeline((Fit(), Polish())),
    ),
    ("an implied conversion's field", Pipeline((Fit(), Polish(), Pack(4))), Pipeline((Fit(), Polish()))),
]


@pytest.mark.parametrize(("_what", "first", "second"), SAME, ids=[case[0] for case in SAME])
def test_pipelines_that_do_the_same_have_one_hash(_what: str, first: Pipeline, second: Pipeline) -> None:
    assert first.hash == second.hash
    assert first.canonical() == second.canonical()


@pytest.mark.parametrize(("_what", "first", "second"), DIFFERENT, ids=[case[0] for case in DIFFERENT])
def test_pipelines_that_differ_have_two(_what: str, first: Pipeline, second: Pipeline) -> None:
    assert first.hash != second.hash


def test_canonical_is_idempotent_and_keeps_the_hash() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        pipeline = random_pipeline(IMPLYING, int(rng.integers(6)), rng)
        assert pipeline.canonical().canonical() == pipeline.canonical()
        assert pipeline.canonical().hash == pipeline.hash


def test_the_hash_does_not_depend_on_the_process() -> None:
    code = (
        "from support.toy_space import Cut, Fit, Fold\nfrom petra_optuna.pipeline import Pipeline, Recipe\n"
        "print(Pipeline((Fold(), Cut(0.3), Fit()), Recipe(lr=0.01)).hash)"
    )
    here = Pipeline((Fold(), Cut(0.3), Fit()), Recipe(lr=0.01)).hash
    for seed in ("1", "2"):
        env = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        run = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == here


def test_violations_say_what_breaks_a_rule() -> None:
    assert IMPLYING.violations(Pipeline((Fit(), Polish(), Pack()))) == ()
    assert IMPLYING.violations(Pipeline((Cut(),) * 6)) == ("the body has 6 nodes, at most 5 are allowed",)
    assert FREE.violations(Pipeline((Fit(), Polish())))[0].startswith("polish is not in this space")
    assert UNTRAINED.violations(Pipeline((Fit(), Cut(), Polish()))) == ()
    for untrained in (Pipeline(), Pipeline((Pack(),)), Pipeline((Cut(), Fit()))):
        assert UNTRAINED.violations(untrained) == (
            "pipelines start from initialisation, so the first node must be fit or warm",
        )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"body": ()}, "at least one body operation"),
        ({"body": (Cut,), "max_length": 0}, "`max_length` of 1 or more"),
        ({"body": (Cut, Cut)}, "distinct names"),
        ({"body": (Cut, Pack)}, "mixed up: pack"),
        ({"body": (Cut,), "conversions": (Fit,)}, "mixed up: fit"),
        ({"body": (Cut, Polish), "untrained": True}, "no operation of the space may train"),
    ],
)
def test_a_bad_space_is_refused(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        SearchSpace(**arguments)  # type: ignore[arg-type]


def test_describe_shows_only_what_differs_from_the_defaults() -> None:
    assert Pipeline((Cut(ratio=0.25), Fold(), Pack())).describe() == "Ct(ratio=0.25)-Fd-Pk"
