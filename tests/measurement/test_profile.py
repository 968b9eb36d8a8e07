from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from petra_optuna.errors import StudyError, UserError
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
    assert DeviceProfile(name="cuda").baseline_place == ("torch", "cuda:0")


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:", "cpu:x", "cpu:0", "cpu:-1", "cpu:1.5", "cpu:100000"],
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
        ('{"gpu": 1}', "gpu of a device is for cuda; the device is cpu, gpu 1"),
        ('{"name": "cuda", "gpu": -1}', "gpu of a device must be a whole number of at least 0, got -1"),
        ('{"name": "cuda", "gpu": true}', "gpu of a device must be a whole number"),
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


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("text", "device"),
    [("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("cuda:1@torch", "cuda:1")],
)
def test_the_number_behind_cuda_is_the_gpu_and_no_number_of_threads(text: str, device: str) -> None:
    profile = DeviceProfile.parse(text)
    assert (profile.threads, profile.gpu) == (1, int(device[-1]))
    assert profile.place == profile.baseline_place == ("torch", device)
    assert profile.host()["gpu"] == f"name of {device}"
    assert DeviceProfile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


@pytest.mark.usefixtures("two_gpus")
def test_a_file_names_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    path.write_text('{"name": "cuda", "gpu": 1}')
    assert DeviceProfile.parse(str(path)) == DeviceProfile.parse("cuda:1")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused_with_the_number_of_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = r"^there is no cuda:2 here: runtime 'torch' sees 2 GPU\(s\), cuda:0 to cuda:1; give one of them$"
    for ask in (lambda: DeviceProfile.parse("cuda:2"), DeviceProfile(name="cuda", gpu=2).host):
        with pytest.raises(UserError, match=told):
            ask()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"sees 1 GPU\(s\), cuda:0; give"):
        DeviceProfile.parse("cuda:1")


def test_what_a_study_stored_when_there_was_one_gpu_is_read() -> None:
    """Readings that studies share are found by this form, so it stays as it was."""
    stored = DeviceProfile(name="cuda").to_dict()
    assert "gpu" not in stored
    assert DeviceProfile.from_dict(stored).gpu == 0
