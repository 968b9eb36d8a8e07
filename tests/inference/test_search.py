"""The nested search: near the best setting, with a tenth of the measurements, and nothing measured twice."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from support.serving import FakeProcess, Served

from petra_optuna.errors import MeasurementFailed, UserError
from petra_optuna.inference import EdgeDevice, InferenceSpace, inference_objective
from petra_optuna.inference.search import InferenceSearch
from petra_optuna.samplers import algorithm

FILE = Path(__file__)
KINDS = [
    Served(),
    Served(fixed_ms=0.01),
    Served(fixed_ms=3.0),
    Served(serial=0.9),
    Served(cache=24),
    Served(serial=0.0, cache=50),
]


def searched(process, objective="throughput", cores=2, runtimes=("onnxruntime",), name="tpe", seed=0):
    space = InferenceSpace(cores, runtimes)
    goal = inference_objective(objective)
    study = optuna.create_study(
        direction=goal.direction, sampler=algorithm(name).sampler(seed, space.parameters)
    )
    device = EdgeDevice("test", cores, runtimes=runtimes)
    search = InferenceSearch(device, space, goal, space.size // 10, process, study)
    search.run(FILE, timeout_s=60.0)
    return search, search.conclude("shape")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_the_recommended_setting_is_within_five_percent_of_the_best_of_all(kind, objective):
    process = FakeProcess(kind)
    _, answer = searched(process, objective)
    space = InferenceSpace(2, ("onnxruntime",))
    figure = {
        "latency": lambda setting: kind(setting),
        "throughput": lambda setting: -setting.batch / kind(setting),
    }[objective]
    best = min(figure(setting) for setting in space.settings())
    assert figure(answer.setting) <= best + 0.05 * abs(best)
    assert answer.measurements <= space.size // 10
    assert len(process.measured) <= space.size // 10 + 1  # the simple setting is read from the study


def test_a_setting_is_measured_once_and_the_best_ones_once_more():
    process = FakeProcess(Served())
    search, answer = searched(process)
    once = process.measured[: -len(set(process.measured[-3:]))]
    assert len(set(once)) == len(once)
    assert answer.measurements == len(process.measured)
    assert {trial.state.name for trial in search.study.trials} == {"COMPLETE"}


def test_the_gain_is_against_one_sample_by_all_threads():
    kind = Served()
    _, answer = searched(FakeProcess(kind))
    simple = answer.simple.value
    first = InferenceSpace(2, ("onnxruntime",)).first_settings()[0]
    assert (first.batch, first.threads) == (1, 2)
    assert simple == pytest.approx(1e3 / kind(first))
    assert answer.gain == pytest.approx(answer.expected["throughput_per_s"].value / simple)
    assert answer.gain > 1


def test_a_faster_runtime_is_recommended():
    kind = Served(runtime_factor=(("openvino", 0.5),))
    _, answer = searched(FakeProcess(kind), runtimes=("onnxruntime", "openvino"))
    assert answer.setting.runtime == "openvino"


def test_memory_is_least_at_one_sample():
    _, answer = searched(FakeProcess(Served()), "memory")
    assert answer.setting.batch == 1


def test_settings_that_do_not_fit_are_failed_trials_with_a_reason():
    process = FakeProcess(Served(), fails=lambda setting: setting.batch > 16)
    search, answer = searched(process)
    assert answer.setting.batch <= 16
    failed = [trial for trial in search.study.trials if trial.state.name == "FAIL"]
    assert failed
    assert all("does not fit" in trial.user_attrs["petra:failure"] for trial in failed)


def test_a_file_that_never_runs_says_why():
    process = FakeProcess(Served(), fails=lambda setting: True)
    with pytest.raises(MeasurementFailed, match=r"no setting .*: batch \d+ does not fit"):
        searched(process)


def _opened_in_1000_bytes(process: FakeProcess) -> None:
    device = EdgeDevice("tiny", 1, memory_bytes=1000)
    space, goal = InferenceSpace.of(device), inference_objective("throughput")
    study = optuna.create_study(direction="maximize")
    InferenceSearch(device, space, goal, 10, process, study).run(FILE, 60.0)


def test_a_memory_limit_under_the_model_names_device_limit_and_file():
    told = r"'tiny' allows 1000 bytes .* does not hold test_search.py of \d+ bytes"
    with pytest.raises(UserError, match=told):
        _opened_in_1000_bytes(FakeProcess(Served(), opens=False))


def test_a_file_that_runs_in_no_memory_is_not_called_too_large():
    with pytest.raises(MeasurementFailed, match=r"^std::bad_alloc$"):
        _opened_in_1000_bytes(FakeProcess(Served(), opens=False, broken=True))
