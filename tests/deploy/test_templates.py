"""A model of a structure that was exported before becomes the very file that a new export makes."""

from __future__ import annotations

import copy

import onnx
import pytest
import torch
from torch import nn

from petra_optuna.deploy import Templates, export_onnx, float_graph, lower
from petra_optuna.deploy.convolutions import CONV1D
from petra_optuna.deploy.export import capture, fill
from petra_optuna.deploy.templates import Template
from petra_optuna.errors import LoweringFailed


def trained(model):
    """A copy with other values everywhere."""
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    return other


@pytest.fixture
def captured(monkeypatch):
    """The models that were traced, in order."""
    traced = []

    def counted(model, *more):
        traced.append(model)
        return capture(model, *more)

    monkeypatch.setattr(float_graph, "capture", counted)
    return traced


def test_the_second_file_of_a_structure_is_that_of_a_new_export(model, images, tmp_path, captured):
    templates = Templates()
    lower(model, images, tmp_path / "first.onnx", templates=templates)
    again = lower(trained(model), images, tmp_path / "again.onnx", templates=templates)
    alone = lower(trained(model), images, tmp_path / "alone.onnx")
    assert len(captured) == 2  # the first and the last
    assert (again.reused, alone.reused) == (True, False)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "alone.onnx").read_bytes()


def test_another_shape_is_another_structure(images, tmp_path, captured):
    templates = Templates()
    for width in (8, 12, 8):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 4))
        lower(net.eval(), images, tmp_path / "model.onnx", templates=templates)
    assert len(captured) == 2


@pytest.mark.parametrize(("bias", "stored"), [(0.0, 3), (1.0, 4)], ids=["left out", "merged"])
def test_what_the_optimisation_does_by_value_it_does_by_the_new_values(images, bias, stored):
    """Biases of zero are left out, equal ones stored once; different ones are stored twice."""
    equal = nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(2)))
    for layer in equal[1:]:
        nn.init.constant_(layer.bias, bias)
    template = capture(equal.eval(), images)
    other = trained(equal)
    counts = [len(fill(template, net).graph.initializer) for net in (equal, other)]
    assert counts == [stored, 5]
    assert fill(template, other) == export_onnx(other, images)


SCALE = 1.0


class ReadsGlobal(nn.Module):
    """Multiplies by a number that nobody sees in the module."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        return self.linear(x.flatten(1)) * SCALE


def test_a_template_that_does_not_compute_what_the_model_does_is_replaced(
    images, tmp_path, captured, monkeypatch
):
    templates, net = Templates(), ReadsGlobal().eval()
    lower(net, images, tmp_path / "first.onnx", templates=templates)
    monkeypatch.setattr(f"{__name__}.SCALE", 2.0)
    changed = lower(net, images, tmp_path / "changed.onnx", templates=templates)
    again = lower(net, images, tmp_path / "again.onnx", templates=templates)
    assert (len(captured), changed.reused, again.reused) == (2, False, True)
    assert (tmp_path / "changed.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert onnx.load(tmp_path / "changed.onnx") == export_onnx(net, images)


class Lifted(nn.Module):
    """Adds a constant that is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        return self.linear(x.flatten(1)) + torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_a_graph_with_a_value_of_unknown_origin_is_exported_anew(images, tmp_path, captured):
    templates, net = Templates(), Lifted().eval()
    assert not capture(net, images).reusable
    artifacts = [lower(net, images, tmp_path / "model.onnx", templates=templates) for _ in range(2)]
    assert [artifact.reused for artifact in artifacts] == [False, False]
    assert len(captured) == 2


def test_a_template_holds_no_weights(residual, images):
    template = capture(residual, images)
    assert template.reusable
    stored = onnx.ModelProto.FromString(template.graph).graph.initializer
    assert not any(tensor.raw_data for tensor in stored)
    assert {tensor.name for tensor in stored} <= {
        *dict(residual.named_parameters()),
        *dict(residual.named_buffers()),
    }


def test_a_model_without_a_tensor_of_the_template_is_refused(residual, images):
    with pytest.raises(LoweringFailed, match=r"no tensor 'stem.0.weight' of shape"):
        fill(capture(residual, images), nn.Linear(2, 2))


def test_the_templates_that_were_not_used_for_long_leave():
    templates, template = Templates(), Template(b"", frozenset(), reusable=True)
    for key in range(64):
        templates.put(key, template)
    assert templates.get(0) is template
    templates.put(64, template)
    assert (templates.get(0), templates.get(1)) == (template, None)


def test_a_graph_that_cannot_be_reused_is_not_kept():
    templates = Templates()
    templates.put("lifted", Template(b"", frozenset(), reusable=False))
    templates.put(None, Template(b"", frozenset(), reusable=True))
    assert templates.get("lifted") is templates.get(None) is None


def test_both_layouts_of_a_model_share_a_template(tmp_path, captured):
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)).eval()
    templates, series = Templates(), (torch.randn(4, 2, 8),)
    lower(net, series, tmp_path / "1d.onnx", convolutions=CONV1D, templates=templates)
    images = lower(net, series, tmp_path / "2d.onnx", convolutions="2d", templates=templates)
    assert (images.lowering["convolutions"], images.reused, len(captured)) == ("2d", True, 1)
