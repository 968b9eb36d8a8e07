from __future__ import annotations

import copy
import getpass
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from petra_optuna.deploy import OnnxRuntimeModel, check_parity, export_onnx, lower
from petra_optuna.errors import LoweringFailed
from petra_optuna.nn.inputs import to_feeds


def test_the_file_computes_what_the_model_computes_at_any_batch_size(model, images):
    runtime = OnnxRuntimeModel(export_onnx(model, images))
    for size in (1, 2, 4, 7):
        batch = (torch.randn(size, 1, 8, 8),)
        with torch.inference_mode():
            expected = model(*batch).numpy()
        np.testing.assert_allclose(runtime.run(to_feeds(batch)), expected, atol=1e-5)


class Lengths(nn.Module):
    """Asks Python for the length of the batch, and calls a convolution twice, once before a batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Linear(4 * 9, 2)

    def forward(self, pictures):
        twice = self.norm(self.conv(self.conv(pictures).relu()))
        return self.head(twice.reshape(len(pictures), -1))


def test_a_python_length_of_the_batch_stays_dynamic(tmp_path):
    model, example = Lengths().eval(), (torch.randn(5, 4, 3, 3),)
    artifact = lower(model, example, tmp_path / "model.onnx")
    runtime = OnnxRuntimeModel(artifact.path)
    for size in (1, 3, 8):
        batch = (torch.randn(size, 4, 3, 3),)
        with torch.inference_mode():
            np.testing.assert_allclose(runtime.run(to_feeds(batch)), model(*batch).numpy(), atol=1e-5)


def test_batch_norms_are_folded_where_they_follow_a_layer(model, images):
    graph = export_onnx(model, images).graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    for norm in norms:
        before = makers[norm.input[0]]
        assert before.op_type == "Add" or readers[norm.input[0]] > 1
    assert bool(norms) == (type(model).__name__ == "PreActivation")


def test_the_file_tells_nothing_of_the_machine_that_made_it(model, images):
    data = export_onnx(model, images).SerializeToString()
    assert b"stack_trace" not in data
    for private in (
        str(Path.cwd()),
        str(Path.home()),
        "/tmp",
        "site-packages",
        ".py",
        getpass.getuser() + "/",
    ):
        assert private.encode() not in data


def test_same_model_same_bytes_and_the_model_is_untouched(residual, images):
    residual.train()
    before = copy.deepcopy(residual.state_dict())
    first = export_onnx(residual, images).SerializeToString(deterministic=True)
    second = export_onnx(residual, images).SerializeToString(deterministic=True)
    assert first == second
    assert residual.training
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())


def test_names_and_dynamic_dimensions(images, residual):
    graph = export_onnx(residual, images).graph
    assert [item.name for item in graph.input] == ["input"]
    assert [item.name for item in graph.output] == ["output"]
    dimensions = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert dimensions == ["batch", 1, 8, 8]


@pytest.mark.parametrize("keyword", [True, False])
def test_several_inputs_by_position_or_keyword(two_inputs, keyword):
    amounts, codes = torch.randn(3, 2), torch.randint(0, 10, (3, 5))
    inputs = {"codes": codes, "amounts": amounts} if keyword else (amounts, codes)
    proto = export_onnx(two_inputs, inputs)
    names = {"codes", "amounts"} if keyword else {"input_0", "input_1"}
    assert {item.name for item in proto.graph.input} == names
    assert check_parity(two_inputs, proto, inputs) < 1e-5


def test_an_example_of_one_sample_still_gives_a_dynamic_batch(residual, images):
    proto = export_onnx(residual, (images[0][:1],))
    assert OnnxRuntimeModel(proto).run({"input": images[0].numpy()}).shape == (4, 4)


class MergesInEvaluation(nn.Linear):
    """Adds a second weight to its first one when it leaves training, as adapters do."""

    def __init__(self):
        super().__init__(64, 4)
        self.added, self.merged = nn.Parameter(torch.ones(4, 64)), False

    def train(self, mode=True):
        if not mode and not self.merged:
            self.weight.data += self.added.data
            self.merged = True
        return super().train(mode)

    def forward(self, x):
        return super().forward(x.flatten(1))


def test_weights_that_change_when_training_ends_are_those_of_the_file(images):
    model = MergesInEvaluation()
    proto = export_onnx(model, images)
    assert not model.merged
    assert check_parity(model.eval(), proto, images) < 1e-4


class NoOperator(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x).flatten(1)


class DataDependent(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize(("kind", "reason"), [(NoOperator, "inv"), (DataDependent, "data-dependent")])
def test_a_model_that_cannot_be_exported_is_one_line_with_the_reason(kind, reason, images, capfd):
    with pytest.raises(LoweringFailed, match=reason) as caught:
        export_onnx(kind().eval(), images)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""
