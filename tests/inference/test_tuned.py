from __future__ import annotations

import pytest
import torch

from petra_optuna.inference import device_of
from petra_optuna.measurement import DeviceProfile


def test_settings_are_tuned_on_the_gpu_of_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device = device_of(DeviceProfile.parse("cuda:1"), "torch")
    assert DeviceProfile.named(device.device).place == ("torch", "cuda:1")
    assert device_of(DeviceProfile(), "onnxruntime").device == "cpu"
