"""Answers are remembered by what they depend on, and by nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.chain_file import FEATURES, chain
from support.serving import Served, fake_settings

from petra_optuna.database import open_storage
from petra_optuna.errors import UserError
from petra_optuna.inference import EdgeDevice, InferenceTuner, Recommendation, inference_objective, is_nested
from petra_optuna.study import load_study


@pytest.fixture
def tuner(tmp_path):
    storage = open_storage(tmp_path / "study.db")
    device = EdgeDevice("test", cores=4)
    return InferenceTuner(storage, device, (0,), inference_objective("throughput"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(chain(8, 2).SerializeToString())
    return path


FEEDS = {"input": np.zeros((1, FEATURES), dtype=np.float32)}


def test_a_shape_is_searched_once(tuner, file, monkeypatch):
    files = fake_settings(monkeypatch, Served())
    first = tuner.recommend(file, FEEDS)
    again = dataclasses.replace(tuner, seed=5, cores=(3,)).recommend(file, FEEDS)
    assert len(files) == 1
    assert not first.from_history
    assert again.from_history
    assert again == dataclasses.replace(first, from_history=True)


@pytest.mark.parametrize(
    "other",
    [
        {"objective": inference_objective("latency")},
        {"device": EdgeDevice("other", cores=4)},
        {"max_batch": 8},
        {"algorithm": "random"},
        {"groups": {"random": ("cores",)}},
    ],
)
def test_another_question_is_another_search(tuner, file, monkeypatch, other):
    files = fake_settings(monkeypatch, Served())
    tuner.recommend(file, FEEDS)
    assert not dataclasses.replace(tuner, **other).recommend(file, FEEDS).from_history
    assert len(files) == 2


def test_weights_are_no_part_of_the_question_and_shapes_are(tuner, file, tmp_path, monkeypatch):
    files = fake_settings(monkeypatch, Served())
    tuner.recommend(file, FEEDS)
    other = tmp_path / "other.onnx"
    other.write_bytes(chain(8, 2, seed=1).SerializeToString())
    assert tuner.recommend(other, FEEDS).from_history
    other.write_bytes(chain(8, 3).SerializeToString())
    assert not tuner.recommend(other, FEEDS).from_history
    assert len(files) == 2


def test_inputs_of_another_size_are_another_question(tuner, file):
    longer = {"input": np.zeros((1, FEATURES, 3), dtype=np.float32)}
    more = {"input": np.zeros((2, FEATURES), dtype=np.float32)}
    assert tuner.shape(file, FEEDS) == tuner.shape(file, more) != tuner.shape(file, longer)


def test_a_search_that_was_cut_off_is_no_history(tuner, file, monkeypatch):
    fake_settings(monkeypatch, Served())
    with tuner.searched(file, FEEDS):
        assert tuner.known(tuner.shape(file, FEEDS)) is None
    assert not tuner.recommend(file, FEEDS).from_history


def test_a_recommendation_survives_its_json(tuner, file, monkeypatch):
    fake_settings(monkeypatch, Served())
    answer = tuner.recommend(file, FEEDS)
    assert Recommendation.from_dict(answer.to_dict()) == answer


def test_a_tuner_survives_its_json(tuner):
    asked = dataclasses.replace(tuner, groups={"random": ("cores",)}, measurements=7)
    restored = InferenceTuner.from_dict(asked.to_dict(), tuner.storage)
    assert restored.to_dict() == asked.to_dict()
    assert restored.study_name("shape") == asked.study_name("shape")


def test_a_device_is_capped_to_its_cores_and_says_so(tuner):
    assert tuner.device.cores == 1
    assert tuner.device.describe() == "test (1 core, capped: the device has 4)"


def test_nested_studies_are_not_the_users(tuner, file, monkeypatch):
    fake_settings(monkeypatch, Served())
    answer = tuner.recommend(file, FEEDS)
    assert is_nested(answer.study)
    with pytest.raises(UserError, match="holds no study"):
        load_study(tuner.storage)


def test_quiet_holds_for_the_last_measurements_alone(tuner, file, monkeypatch):
    """What is measured beside a training are ratios; the anchor's own time needs a quiet machine."""
    events = []

    def call_ms(setting):
        events.append(setting)
        return Served()(setting)

    fake_settings(monkeypatch, call_ms)

    class Quiet:
        def __enter__(self):
            events.append("quiet")

        def __exit__(self, *_):
            events.append("loud")

    tuner.recommend(file, FEEDS, Quiet)
    start = events.index("quiet")
    assert start > len(events) / 2
    assert events[-1] == "loud"
