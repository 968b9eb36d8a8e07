"""Parameters are read as they are printed, and what nothing reads is refused."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from petra_optuna.edgetune import TRAINING_SPACE, Workload, parameter
from petra_optuna.edgetune.space import checked_groups, checked_space, most_threads
from petra_optuna.errors import UserError

KNOWN = {
    "depth": CategoricalDistribution((18, 34, 50)),
    "kind": CategoricalDistribution(("wide", "narrow")),
    "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "width": IntDistribution(8, 64, step=8),
    **TRAINING_SPACE,
}


@pytest.mark.parametrize(
    ("text", "name", "distribution"),
    [
        ("depth=18,34", "depth", CategoricalDistribution((18, 34))),
        ("kind=narrow", "kind", CategoricalDistribution(("narrow",))),
        ("learning_rate=1e-3:1e-2", "learning_rate", FloatDistribution(1e-3, 1e-2, log=True)),
        ("learning_rate=0.01", "learning_rate", FloatDistribution(0.01, 0.01, log=True)),
        ("batch_size=32:64", "batch_size", IntDistribution(32, 64, log=True)),
        ("dropout=0.1:0.3", "dropout", FloatDistribution(0.1, 0.3, step=0.1)),
        ("width=16:32", "width", IntDistribution(16, 32, step=8)),
        ("train_threads=1:2", "train_threads", IntDistribution(1, 2)),
    ],
)
def test_a_text_gives_the_range_in_the_known_parameters_kind(text, name, distribution):
    assert parameter(text, KNOWN) == (name, distribution)


@pytest.mark.parametrize("name", KNOWN)
def test_a_parameters_own_range_is_read_back(name):
    known = KNOWN[name]
    if isinstance(known, CategoricalDistribution):
        text = ",".join(map(str, known.choices))
    else:
        text = f"{known.low}:{known.high}"
    assert parameter(f"{name}={text}", KNOWN) == (name, known)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("depth", "NAME=LOW:HIGH or NAME=VALUE,VALUE,...; got 'depth'"),
        ("depth=", "got 'depth='"),
        ("=3", "parameter '' of the space is unknown; there are depth, kind"),
        ("deep=18", "parameter 'deep' of the space is unknown"),
        ("depth=20", "'depth=20' does not suit parameter 'depth': 20 is none of 18, 34, 50"),
        ("batch_size=8:4", "does not suit"),
        ("batch_size=0:4", "does not suit"),
        ("batch_size=a", "does not suit"),
        ("batch_size=1.5", "does not suit"),
        ("learning_rate=1:nan", "nan is not finite"),
        ("learning_rate=1:inf", "inf is not finite"),
        ("learning_rate=1,2", "does not suit"),
    ],
)
def test_a_text_that_is_none_is_one_line(text, words):
    with pytest.raises(UserError) as caught:
        parameter(text, KNOWN)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def workload(tiny_task):
    return Workload("mine", tiny_task, lambda depth: None, {"depth": KNOWN["depth"]})


def test_what_is_given_replaces_what_the_workload_has(workload):
    given = {"depth": CategoricalDistribution((18,)), "train_threads": IntDistribution(1, 2)}
    space = checked_space(workload, given)
    assert space == {**TRAINING_SPACE, **given}
    assert checked_space(workload, {}) == {**workload.model_space, **TRAINING_SPACE}


def test_threads_of_training_are_the_most_that_a_trial_may_take(workload):
    threads = {"train_threads": IntDistribution(1, 3)}
    assert most_threads(checked_space(workload, threads), 2) == 3
    assert most_threads(checked_space(workload, {}), 2) == 2


@pytest.mark.parametrize(
    "threads", [IntDistribution(0, 2), FloatDistribution(1, 2), CategoricalDistribution((1, 2))]
)
def test_threads_of_training_are_whole_and_positive(workload, threads):
    with pytest.raises(UserError, match="`train_threads` of the space must be whole numbers of at least 1"):
        checked_space(workload, {"train_threads": threads})


def test_groups_may_name_parameters_of_either_search_and_no_others(workload):
    space = checked_space(workload, {})
    groups = {"random": ("depth", "cores"), "gp": ["learning_rate"]}
    assert checked_groups(groups, space) == {"random": ("depth", "cores"), "gp": ("learning_rate",)}
    with pytest.raises(UserError, match="parameter 'train_threads' of the group of random is unknown"):
        checked_groups({"random": ("train_threads",)}, space)
