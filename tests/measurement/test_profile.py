from __future__ import annotations

import json
import os

import pytest

from petra_optuna.errors import StudyError
from petra_optuna.measurement import DeviceProfile


def test_dict_round_trip_through_json():
    profile = DeviceProfile(threads=3, latency_batch=2, throughput_batches=(128, 8))
    assert DeviceProfile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_what_a_study_stored_when_there_was_one_throughput_batch_is_read():
    stored = DeviceProfile(throughput_batches=(16,)).to_dict()
    del stored["throughput_batches"]
    assert DeviceProfile.from_dict({**stored, "throughput_batch": 16}) == DeviceProfile(
        throughput_batches=(16,)
    )


def test_parse_reads_the_number_of_threads():
    assert DeviceProfile.parse("cpu") == DeviceProfile(threads=1)
    assert DeviceProfile.parse("cpu:1") == DeviceProfile(threads=1)
    most = os.cpu_count()
    assert DeviceProfile.parse(f"cpu:{most}").threads == most


def test_the_runtime_is_a_part_of_the_device(tmp_path):
    path = tmp_path / "board.json"
    path.write_text('{"threads": 1, "runtime": "torch"}')
    for text in ("cpu@torch", "cpu:1@torch", str(path)):
        profile = DeviceProfile.parse(text)
        assert profile == DeviceProfile(runtime="torch")
        assert (profile.place, profile.baseline_place) == (("torch", "cpu"), ("onnxruntime", "cpu"))
    assert DeviceProfile.from_dict({"threads": 1}).runtime == "onnxruntime"  # as older studies stored it
    assert DeviceProfile(name="cuda").baseline_place == ("torch", "cuda")


@pytest.mark.parametrize(
    "text", ["", "gpu", "cuda:0", "cpu:", "cpu:x", "cpu:0", "cpu:-1", "cpu:1.5", "cpu:100000"]
)
def test_parse_refuses_what_it_does_not_measure(text):
    with pytest.raises(StudyError) as caught:
        DeviceProfile.parse(text)
    assert "\n" not in str(caught.value)


def test_a_file_says_what_a_name_cannot(tmp_path):
    core = min(os.sched_getaffinity(0))
    path = tmp_path / "board.json"
    path.write_text(json.dumps({"affinity": [core, core], "memory_limit_bytes": 10**9, "latency_batch": 4}))
    profile = DeviceProfile.parse(str(path))
    assert profile == DeviceProfile(latency_batch=4, affinity=(core,), memory_limit_bytes=10**9)
    assert DeviceProfile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[1]", "must hold an object with only name, threads"),
        ('{"cores": 2}', "must hold an object with only name, threads"),
        ('{"threads": "two"}', "threads of a device must be a whole number"),
        ('{"threads": true}', "threads of a device must be a whole number"),
        ('{"threads": 100000}', "asks for 100000 threads"),
        ('{"memory_limit_bytes": 0}', "memory_limit_bytes of a device must be"),
        ('{"throughput_batches": 64}', "list of positive batch sizes, got 64"),
        ('{"throughput_batches": []}', "list of positive batch sizes"),
        ('{"throughput_batches": [1, 0]}', "list of positive batch sizes"),
        ('{"affinity": 1}', "list of core numbers"),
        ('{"affinity": []}', "list of core numbers"),
        ('{"affinity": [4096]}', "names core 4096"),
        ('{"affinity": [0], "threads": 2}', "names 1 cores for 2 threads"),
        ('{"name": "npu"}', "unknown device 'npu'"),
        ('{"name": ["cpu"]}', "unknown device"),
        ('{"runtime": "abacus"}', "unknown runtime 'abacus'; there are onnxruntime"),
    ],
)
def test_a_file_that_says_nothing_usable_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "board.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=words) as caught:
        DeviceProfile.parse(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match=r"missing\.json cannot be read"):
        DeviceProfile.parse(str(tmp_path / "missing.json"))


def test_this_machine_is_accepted_after_json():
    DeviceProfile().check_host(json.loads(json.dumps(DeviceProfile().host())))


@pytest.mark.parametrize("key", sorted(DeviceProfile().host()))
def test_another_machine_is_refused_by_name(key):
    recorded = {**DeviceProfile().host(), key: "something else"}
    with pytest.raises(StudyError, match=key):
        DeviceProfile().check_host(recorded)
    del recorded[key]
    if key in ("onnx", "onnx-ir", "onnxscript", "scipy"):  # older studies do not hold them
        DeviceProfile().check_host(recorded)
        return
    with pytest.raises(StudyError, match=key):
        DeviceProfile().check_host(recorded)


@pytest.mark.parametrize("text", ["cuda:1", "cuda:0", "cuda:1@torch"])
def test_a_gpu_is_chosen_outside_and_not_taken_for_threads(text: str) -> None:
    with pytest.raises(StudyError, match=f"CUDA_VISIBLE_DEVICES={text[5]}"):
        DeviceProfile.parse(text)
