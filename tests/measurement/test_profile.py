from __future__ import annotations

import json
import os

import pytest

from petra_optuna.errors import StudyError
from petra_optuna.measurement import DeviceProfile


def test_dict_round_trip_through_json():
    profile = DeviceProfile(threads=3, latency_batch=2, throughput_batch=128)
    assert DeviceProfile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_parse_reads_the_number_of_threads():
    assert DeviceProfile.parse("cpu") == DeviceProfile(threads=1)
    assert DeviceProfile.parse("cpu:1") == DeviceProfile(threads=1)
    most = os.cpu_count()
    assert DeviceProfile.parse(f"cpu:{most}").threads == most


@pytest.mark.parametrize(
    "text", ["", "gpu", "cuda:0", "cpu:", "cpu:x", "cpu:0", "cpu:-1", "cpu:1.5", "cpu:100000"]
)
def test_parse_refuses_what_it_does_not_measure(text):
    with pytest.raises(StudyError) as caught:
        DeviceProfile.parse(text)
    assert "\n" not in str(caught.value)


def test_this_machine_is_accepted_after_json():
    DeviceProfile.check_host(json.loads(json.dumps(DeviceProfile.host())))


@pytest.mark.parametrize("key", sorted(DeviceProfile.host()))
def test_another_machine_is_refused_by_name(key):
    recorded = {**DeviceProfile.host(), key: "something else"}
    with pytest.raises(StudyError, match=key):
        DeviceProfile.check_host(recorded)
    del recorded[key]
    with pytest.raises(StudyError, match=key):
        DeviceProfile.check_host(recorded)
