from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from petra_optuna.deploy import check_parity, export_onnx
from petra_optuna.errors import LoweringFailed


def shift_first_weight(proto, amount):
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1 and array.dtype == np.float32:
            changed = array.copy()
            changed.flat[0] += amount
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
            return
    raise AssertionError("no weight")


class Masked(nn.Module):
    """Attention that hides padding, token 0. PyTorch gives zeros for a sample of it alone, its file NaN."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, tokens):
        return self.encoder(self.embedding(tokens), src_key_padding_mask=tokens == 0).mean(1)


def test_a_sample_that_is_padding_alone_is_told_by_its_number():
    model, tokens = Masked().eval(), torch.randint(1, 10, (4, 5))
    proto = export_onnx(model, (tokens,))
    check_parity(model, proto, (tokens,))
    tokens[2] = 0
    with pytest.raises(LoweringFailed, match=r"its outputs are not finite for sample 2 of 4, .*padding"):
        check_parity(model, proto, (tokens,))


def test_a_model_whose_own_outputs_are_no_numbers_is_told_from_its_file(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    proto = export_onnx(model, images)
    with torch.no_grad():
        model[1].bias[1] = torch.nan
    with pytest.raises(LoweringFailed, match="the model's own outputs are not finite for sample 0 of"):
        check_parity(model, proto, images)


def test_a_faithful_file_passes_and_the_difference_is_small(residual, images):
    difference = check_parity(residual, export_onnx(residual, images), images)
    assert 0 <= difference < 1e-4


@pytest.mark.parametrize("amount", [1.0, float("nan")])
def test_one_wrong_weight_is_caught(residual, images, amount):
    proto = export_onnx(residual, images)
    shift_first_weight(proto, amount)
    with pytest.raises(LoweringFailed, match="differs"):
        check_parity(residual, proto, images)


def test_the_tolerance_is_relative_to_the_outputs(images):
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    with torch.no_grad():
        small[1].weight.mul_(1e-6)
        small[1].bias.mul_(1e-6)
    proto = export_onnx(small, images)
    assert check_parity(small, proto, images) < 1e-9
    shift_first_weight(proto, 1e-6)
    with pytest.raises(LoweringFailed, match="differs"):
        check_parity(small, proto, images)


def test_each_output_is_compared_on_its_own_scale():
    model = nn.Linear(4, 2).eval()
    with torch.no_grad():
        model.weight[0] *= 1e5
    inputs = (torch.randn(8, 4),)
    proto = export_onnx(model, inputs)
    check_parity(model, proto, inputs)
    for tensor in proto.graph.initializer:
        if tuple(tensor.dims) == (2,):
            bias = numpy_helper.to_array(tensor) + np.float32([0, 20])
            tensor.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), tensor.name))
    with pytest.raises(LoweringFailed, match="by 20"):
        check_parity(model, proto, inputs)


class FixedBatch(nn.Module):
    """Works on the example's batch only."""

    def forward(self, x):
        return x.reshape(2, -1)


def test_a_first_dimension_that_is_not_the_batch_is_caught(images):
    with pytest.raises(LoweringFailed, match="batch"):
        check_parity(FixedBatch().eval(), export_onnx(FixedBatch().eval(), images), images)
