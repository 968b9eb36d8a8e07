"""The whole way of a request: server, its process, the measuring children, the database, and back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import optuna
import pytest
from support.chain_file import FEATURES, chain

from petra_optuna.database import open_storage
from petra_optuna.errors import MeasurementFailed
from petra_optuna.inference import EdgeDevice, InferenceServer, InferenceTuner, Pause, inference_objective
from petra_optuna.measurement import available_cores

FEEDS = {"input": np.random.default_rng(0).standard_normal((2, FEATURES)).astype(np.float32)}
CORE = max(os.sched_getaffinity(0))
MEASUREMENTS = 6


def tuner(folder: Path, memory_bytes: int | None = None) -> InferenceTuner:
    return InferenceTuner(
        open_storage(folder / "study.db"),
        EdgeDevice("test", cores=1, memory_bytes=memory_bytes),
        (CORE,),
        inference_objective("throughput"),
        max_batch=64,
        measurements=MEASUREMENTS,
    )


def test_a_real_file_is_searched_stored_and_answered_from_history(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(chain(64, 2), file)
    asked, url, cores = tuner(tmp_path), f"{tmp_path}/study.db", available_cores()
    with InferenceServer(asked, url, Pause()) as server:
        answer = server.answer(server.ask(file, FEEDS))
    assert available_cores() == cores  # the process keeps to the device's core, and this one does not
    assert answer.setting.batch > 1
    assert answer.gain > 1.5
    assert answer.measurements == MEASUREMENTS
    assert set(answer.expected) >= {"latency_ms", "throughput_per_s"}
    assert answer.seconds_per_sample == pytest.approx(
        answer.expected["latency_ms"].value / 1e3 / answer.setting.batch
    )
    nested = optuna.load_study(study_name=answer.study, storage=asked.storage)
    assert len({tuple(trial.params.items()) for trial in nested.trials}) >= MEASUREMENTS // 2
    with InferenceServer(asked, url, Pause()) as later:
        assert later.answer(later.ask(file, FEEDS)).from_history
    assert (server.counts.searches, later.counts.searches, later.counts.hits) == (1, 0, 1)


def test_a_model_that_the_device_does_not_hold_is_refused_with_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(chain(2000, 1), file)
    with InferenceServer(tuner(tmp_path, 5_000_000), f"{tmp_path}/study.db", Pause()) as server:
        shape = server.ask(file, FEEDS)
        with pytest.raises(MeasurementFailed, match=r"'test' allows 5000000 bytes of memory, which does not"):
            server.answer(shape)
    assert server.counts.restarts == 0
