"""Laws that every task keeps; a new one is one row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.news_files import write_news
from support.series_files import states, waves, write_series
from support.wav_files import write_tones

from petra_optuna.nn.inputs import Inputs, batch_size_of, forward
from petra_optuna.tasks import Task, build_task, open_once, speech

TASKS = ("digits_task", "news_task", "series_task", "speech_task", "tiny_task")


@pytest.fixture(scope="module")
def news_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Articles with one word of their topic."""
    folder = tmp_path_factory.mktemp("news")
    return build_task("ag_news", data_root=write_news(folder / "news", 40, 5), cache_dir=folder)


@pytest.fixture(scope="module")
def series_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Windows of a wave, and whether another wave is high at their end."""
    folder, columns = tmp_path_factory.mktemp("series"), waves(700)
    table = {"hour": columns["hour"], "cause": columns["cause"], "state": states(700)}
    schema = {"time": "hour", "target": "state", "kind": "classification", "horizon": 0}
    root = write_series(folder / "wave", table, **schema, window=24, filters=4, depth=2, epochs=12)
    return build_task("time_series", data_root=root, cache_dir=folder)


@pytest.fixture(scope="module")
def speech_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Tones of three frequencies, and a narrow base."""
    folder = tmp_path_factory.mktemp("speech")
    root = write_tones(folder / "tones", (250, 500, 1000), 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "EMBEDDING", 8)
        patch.setattr(speech, "RECIPE", dataclasses.replace(speech.RECIPE, epochs=12, batch_size=16))
        return build_task("speech", data_root=root, cache_dir=folder)


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Task)
    return found


def _predict(task: Task):
    def predict(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            return forward(task.model, inputs).numpy()

    return predict


def test_splits_share_no_sample(task: Task) -> None:
    assert task.test is not None
    rows = [
        {
            inputs[index].numpy().tobytes()
            for (inputs, *_), _ in split.batches(256)
            for index in range(len(inputs))
        }
        for split in (task.train, task.selection, open_once(task.test))
    ]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_calibration_is_part_of_train(task: Task) -> None:
    train, calibration = (
        {row.numpy().tobytes() for (inputs, *_), _ in split.batches(256) for row in inputs}
        for split in (task.train, task.calibration)
    )
    assert calibration <= train


def test_the_original_is_good_and_its_order_is_that_of_the_labels(task: Task) -> None:
    """Predictions out of step with labels would score at chance."""
    assert task.metric.direction == "maximize"
    assert task.evaluate(_predict(task), task.selection) >= 0.9
    shuffled = list(task.selection.batches(64, shuffle_seed=3))
    right = sum(
        int((_predict(task)(inputs).argmax(1) == target.numpy()).sum()) for inputs, target in shuffled
    )
    total = sum(batch_size_of(inputs) for inputs, _ in shuffled)
    assert right / total == pytest.approx(task.evaluate(_predict(task), task.selection), abs=2 / total)


def test_the_model_rests_in_eval_mode(task: Task) -> None:
    assert not task.model.training
    assert batch_size_of(task.example) >= 2


def test_labels_name_every_class(task: Task) -> None:
    classes = {int(target) for _, targets in task.train.batches(256) for target in targets}
    assert classes == set(range(len(task.labels)))
