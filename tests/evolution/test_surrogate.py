from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from support.toy_space import BOUNDS, DIRECTIONS, FREE, Cut, Fit, Fold, Pack, landscape

from petra_optuna.evolution import (
    Bounds,
    Surrogate,
    params_features,
    pipeline_features,
    random_pipeline,
    unit_hypervolume,
)
from petra_optuna.evolution.surrogate import TREES, volume_gains
from petra_optuna.pipeline import Pipeline, Recipe


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(0, 4))
def test_pipelines_that_do_the_same_look_the_same_and_all_are_of_one_length(seed: int, length: int) -> None:
    pipeline = random_pipeline(FREE, length, np.random.default_rng(seed))
    features = pipeline_features(pipeline, FREE)
    assert features.shape == pipeline_features(Pipeline(()), FREE).shape
    assert np.isfinite(features).all()
    assert np.array_equal(features, pipeline_features(pipeline.canonical(), FREE))


@pytest.mark.parametrize(
    "other",
    [
        Pipeline((Cut(ratio=0.4), Fit(), Pack()), Recipe()),
        Pipeline((Fit(), Cut(), Pack()), Recipe()),
        Pipeline((Cut(), Fit()), Recipe()),
        Pipeline((Cut(), Fit(), Pack(bits=4)), Recipe()),
        Pipeline((Cut(), Fit(), Fit(), Pack()), Recipe()),
        Pipeline((Cut(), Fit(), Pack()), Recipe(lr=0.01)),
        Pipeline((Cut(), Fold(), Pack()), Recipe()),
    ],
)
def test_pipelines_that_differ_look_different(other: Pipeline) -> None:
    here = pipeline_features(Pipeline((Cut(), Fit(), Pack()), Recipe()), FREE)
    assert not np.array_equal(here, pipeline_features(other, FREE))


def test_parameters_are_places_and_categories_are_columns() -> None:
    kinds = {
        "a": FloatDistribution(1e-4, 1.0, log=True),
        "b": CategoricalDistribution((None, "x", True)),
        "c": IntDistribution(0, 10),
    }
    assert params_features({"a": 1e-2, "b": None}, kinds) == pytest.approx([0.5, 1, 0, 0, -1])
    assert params_features({"b": True, "c": 5}, kinds) == pytest.approx([-1, 0, 0, 1, 0.5])


@given(
    points=arrays(float, (5, 3), elements=st.floats(-3, 1.5)),
    front=arrays(float, (4, 3), elements=st.floats(-3, 0.9)),
)
def test_gains_are_differences_of_volumes(points: np.ndarray, front: np.ndarray) -> None:
    def added(front: np.ndarray) -> list[float]:
        before = unit_hypervolume(front) if len(front) else 0.0
        return [unit_hypervolume(np.vstack([front, point])) - before for point in points]

    assert np.maximum(volume_gains(points, front), 0) == pytest.approx(added(front), abs=1e-9)
    assert np.maximum(volume_gains(points, front[:0]), 0) == pytest.approx(added(front[:0]), abs=1e-9)


@given(
    point=arrays(float, 3, elements=st.floats(-3, 1.5)),
    front=arrays(float, (4, 3), elements=st.floats(-3, 0.9)),
)
def test_what_gains_nothing_is_known_by_how_much_it_lacks(point: np.ndarray, front: np.ndarray) -> None:
    lacks = float(volume_gains(point[None], front)[0])
    if lacks < 0:
        assert volume_gains(point[None] + lacks - 1e-3, front)[0] > 0
        assert volume_gains(point[None] + lacks + 1e-6, front)[0] <= 0


def test_gains_of_one_objective() -> None:
    gains = volume_gains(np.array([[0.2], [0.9], [1.4]]), np.array([[0.5], [0.7]]))
    assert gains == pytest.approx([0.3, -0.4, -0.9])
    assert volume_gains(np.array([[0.2], [1.4]]), np.empty((0, 1))) == pytest.approx([0.8, -0.4])


def _data(count: int, seed: int) -> tuple[list[Pipeline], np.ndarray]:
    rng = np.random.default_rng(seed)
    pipelines = [random_pipeline(FREE, 1 + row % 4, rng) for row in range(count)]
    values = [landscape(pipeline) for pipeline in pipelines]
    return pipelines, Bounds.from_dict(BOUNDS).unit(values, DIRECTIONS)


def test_it_foretells_which_candidates_gain() -> None:
    known, units = _data(120, 0)
    unknown, truth = _data(200, 1)
    surrogate = Surrogate.fit(np.array([pipeline_features(p, FREE) for p in known]), units, np.ones(120))
    front = np.zeros((1, 2))  # the original's
    foretold = surrogate.gains(np.array([pipeline_features(p, FREE) for p in unknown]), front)
    real = volume_gains(truth, front)
    best = np.argsort(-foretold)[:20]
    assert real[best].mean() > 2 * real.mean()


def test_what_breaks_a_constraint_is_avoided() -> None:
    known, units = _data(120, 0)
    features = np.array([pipeline_features(p, FREE) for p in known])
    packed = np.array([p.conversion is not None for p in known])
    free, bound = (
        Surrogate.fit(features, units, feasible).gains(features, np.empty((0, 2)))
        for feasible in (np.ones(120), 1.0 - packed)
    )
    inside = free > 0
    assert np.all(bound[inside & packed] < 0.3 * free[inside & packed])
    assert np.all(bound[inside & ~packed] > 0.7 * free[inside & ~packed])
    assert np.all(bound[~inside & packed] < free[~inside & packed])


def test_the_same_trials_give_the_same_trees() -> None:
    known, units = _data(40, 0)
    features = np.array([pipeline_features(p, FREE) for p in known])
    first, second = (Surrogate.fit(features, units, np.ones(40)) for _ in range(2))
    assert len(first.trees) == TREES
    front = units[:3]
    assert np.array_equal(first.gains(features, front), second.gains(features, front))
    other = dataclasses.replace(first, trees=first.trees[:3])
    assert not np.array_equal(first.gains(features, front), other.gains(features, front))
