from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from support.toy_space import FREE, IMPLYING, UNTRAINED, Cut, Fit, Fold, Pack, Polish, Squash

from petra_optuna.evolution import MUTATIONS, Mutation, random_pipeline
from petra_optuna.pipeline import Pipeline, SearchSpace

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}
SPACES = pytest.mark.parametrize("space", [FREE, IMPLYING, UNTRAINED], ids=["free", "implying", "untrained"])
EVERY = pytest.mark.parametrize("mutation", MUTATIONS, ids=list(BY_NAME))


def _pairs(mutation: Mutation, space: SearchSpace, count: int = 300) -> list[tuple[Pipeline, Pipeline]]:
    rng = np.random.default_rng(0)
    parents = [random_pipeline(space, int(rng.integers(space.max_length + 1)), rng) for _ in range(count)]
    children = [(parent, mutation(parent, space, rng)) for parent in parents]
    return [(parent, child) for parent, child in children if child is not None]


def test_names_are_distinct() -> None:
    assert len(BY_NAME) == len(MUTATIONS)


@SPACES
@EVERY
def test_children_are_legal_and_differ_from_their_parents(mutation: Mutation, space: SearchSpace) -> None:
    pairs = _pairs(mutation, space)
    assert len(pairs) > 100
    if space.untrained:
        assert {child.body[0].kind for _, child in pairs} == {"training"}
    for parent, child in pairs:
        assert space.violations(child) == ()
        assert child.hash != parent.hash


@EVERY
def test_a_mutation_is_a_pure_function_of_its_arguments(mutation: Mutation) -> None:
    assert _pairs(mutation, FREE, 50) == _pairs(mutation, FREE, 50)


LAWS: dict[str, Callable[[Pipeline, Pipeline], bool]] = {
    "change_node": lambda parent, child: (
        parent.notation == child.notation
        and parent.recipe == child.recipe
        and sum(a != b for a, b in zip(parent, child, strict=True)) == 1
    ),
    "insert": lambda parent, child: any(
        child.body[:i] + child.body[i + 1 :] == parent.body for i in range(len(child.body))
    ),
    "drop": lambda parent, child: any(
        parent.body[:i] + parent.body[i + 1 :] == child.body for i in range(len(parent.body))
    ),
    "replace": lambda parent, child: (
        sum(type(a) is not type(b) for a, b in zip(parent.body, child.body, strict=True)) == 1
        and sum(a != b for a, b in zip(parent.body, child.body, strict=True)) == 1
    ),
    "swap": lambda parent, child: Counter(parent.body) == Counter(child.body),
    "change_conversion": lambda parent, child: (
        parent.body == child.body and type(parent.conversion) is not type(child.conversion)
    ),
    "change_recipe": lambda parent, child: parent.nodes == child.nodes and parent.recipe != child.recipe,
}


@EVERY
def test_a_mutation_changes_what_its_name_says_and_nothing_else(mutation: Mutation) -> None:
    for parent, child in _pairs(mutation, FREE):
        assert LAWS[mutation.name](parent, child)
        if mutation.name not in ("change_node", "change_conversion"):
            assert child.conversion == parent.conversion
        if mutation.name != "change_recipe":
            assert child.recipe == parent.recipe


IMPOSSIBLE = [
    ("change_node", Pipeline()),
    ("change_node", Pipeline((Squash(),))),
    ("insert", Pipeline((Cut(), Fold(), Fit(), Cut()))),
    ("drop", Pipeline((Pack(),))),
    ("replace", Pipeline()),
    ("swap", Pipeline((Cut(), Pack()))),
    ("swap", Pipeline((Cut(), Cut()))),
    ("change_recipe", Pipeline((Cut(), Fold()))),
]


@pytest.mark.parametrize(("name", "pipeline"), IMPOSSIBLE)
def test_what_is_not_possible_gives_none(name: str, pipeline: Pipeline) -> None:
    rng = np.random.default_rng(0)
    assert {BY_NAME[name](pipeline, FREE, rng) for _ in range(20)} == {None}


def test_a_child_that_breaks_an_order_rule_gives_none() -> None:
    rng = np.random.default_rng(0)
    parent = Pipeline((Fit(), Polish()))
    assert BY_NAME["swap"](parent, UNTRAINED, rng) is None
    dropped = [BY_NAME["drop"](parent, UNTRAINED, rng) for _ in range(20)]
    assert {child.notation for child in dropped if child is not None} == {"Ft"}


def test_a_child_that_does_the_same_gives_none() -> None:
    # Polish packs the file anyway: naming Pack with its default field changes nothing.
    implied, parent = SearchSpace((Fit, Polish), (Pack,)), Pipeline((Fit(), Polish()))
    rng = np.random.default_rng(1)
    children = [BY_NAME["change_conversion"](parent, implied, rng) for _ in range(40)]
    assert None in children
    assert {child.conversion for child in children if child is not None} == {Pack(4)}


def test_without_conversions_there_is_none_to_change() -> None:
    bare = SearchSpace((Cut,))
    assert BY_NAME["change_conversion"](Pipeline((Cut(),)), bare, np.random.default_rng(0)) is None
    assert BY_NAME["replace"](Pipeline((Cut(),)), bare, np.random.default_rng(0)) is None


def test_every_pipeline_can_be_reached_from_the_original() -> None:
    rng = np.random.default_rng(2)
    seen, pipeline = set(), Pipeline()
    for _ in range(4000):
        child = MUTATIONS[int(rng.integers(len(MUTATIONS)))](pipeline, FREE, rng)
        pipeline = child or pipeline
        seen.add(pipeline.notation)
    body = sum(len(FREE.body) ** length for length in range(3))
    short = {notation for notation in seen if len(Pipeline.from_notation(notation, FREE.operations).body) < 3}
    assert len(short) == body * (len(FREE.conversions) + 1)
