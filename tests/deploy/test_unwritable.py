from __future__ import annotations

import pytest
import torch
from torch import nn

from petra_optuna.deploy import export_onnx, unwritable
from petra_optuna.errors import LoweringFailed


class Spare(nn.Module):
    """Stores less than it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.spare = nn.Linear(16, 4), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def test_a_model_beyond_the_longest_file_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwritable, "LARGEST_BYTES", 4 * 16 * 4)
    inputs = (torch.randn(2, 16),)
    export_onnx(nn.Linear(16, 4, bias=False), inputs)
    export_onnx(Spare(), inputs)
    with pytest.raises(LoweringFailed, match="GiB of weights, and an ONNX file holds 2 GiB"):
        export_onnx(nn.Linear(16, 5), inputs)


def test_a_projected_lstm_is_refused_by_its_name() -> None:
    model = nn.ModuleDict({"inner": nn.LSTM(4, 8, proj_size=2)})
    with pytest.raises(LoweringFailed, match=r"layer 'inner' is an LSTM with proj_size=2"):
        unwritable.refuse_unwritable(model, (torch.randn(2, 3, 4),))
    unwritable.refuse_unwritable(nn.LSTM(4, 8), (torch.randn(2, 3, 4),))
