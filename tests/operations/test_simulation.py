"""Simulated INT8 against the INT8 file: the same tensors, the same steps, nearly the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm
from torch.nn.utils import prune as masks

from petra_optuna.deploy import OnnxRuntimeModel, export_onnx
from petra_optuna.nn.copying import private_copy, store_computed_weights
from petra_optuna.nn.quantization import FakeQuantization
from petra_optuna.operations.quantize_static import QuantizeStatic
from petra_optuna.operations.saturation import LIMITS, weight_bits
from petra_optuna.tasks import Task, open_once


class Samples:
    """A context of one calibration batch."""

    repair = False

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def calibration_batches(self, limit: int = 256, batch_size: int = 64):
        yield (self.inputs,), torch.zeros(len(self.inputs))


class Network(nn.Module):
    """Convolution and linear layers around a function under test."""

    def __init__(self, body: Callable[[Network, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv, self.tokens = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(16, 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self, torch.relu(self.norm(self.stem(images))))


def _attention(net: Network, x: Tensor) -> Tensor:
    tokens = net.tokens(x.flatten(2))
    return (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens


BODIES: dict[str, Callable[[Network, Tensor], Tensor]] = {
    "residual": lambda net, x: torch.relu(x + net.conv(x)),
    "shared": lambda net, x: net.conv(functional.max_pool2d(torch.relu(net.conv(x)), 2)),
    "concatenated": lambda net, x: functional.avg_pool2d(torch.cat([net.conv(x), x], 1), 3),
    "pooled to a size": lambda net, x: functional.adaptive_avg_pool2d(net.conv(x)[..., :3, :], (1, 4)),
    "largest of a size": lambda net, x: net.conv(functional.adaptive_max_pool2d(net.conv(x), 2)),
    "pooled to one": lambda net, x: net.conv(functional.adaptive_avg_pool2d(net.conv(x), 1)),
    "pooled by unlike windows": lambda net, x: net.conv(functional.adaptive_avg_pool2d(net.conv(x), 3)),
    "gated": lambda net, x: functional.silu(net.conv(x)) * x.mean((2, 3), keepdim=True).sigmoid(),
    "float between": lambda net, x: net.conv(functional.gelu(net.conv(x))),
    "attention": _attention,
}


@pytest.mark.parametrize("name", BODIES)
def test_the_simulation_rounds_the_tensors_that_the_file_rounds(name: str) -> None:
    torch.manual_seed(0)
    model = Network(BODIES[name])
    nn.init.uniform_(model.norm.weight, -1, 1)  # negative ones too
    nn.init.normal_(model.norm.bias)
    images = torch.randn(32, 2, 4, 4)
    proto = export_onnx(model.eval(), (images,))
    file = QuantizeStatic().apply(proto, Samples(images)).model
    simulation = FakeQuantization(model, [(images,)], LIMITS[weight_bits()])
    assert _steps_of_simulation(simulation) == pytest.approx(_steps_of_file(file), rel=1e-4)
    with torch.no_grad():
        simulated = model(images).numpy()
    actual = OnnxRuntimeModel(file).run({"input": images.numpy()})
    original = OnnxRuntimeModel(proto).run({"input": images.numpy()})
    assert np.linalg.norm(simulated - actual) < 0.35 * np.linalg.norm(original - actual)


COMPUTED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "weight norm": (lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), ("0", "2", "5")),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)), ("0", "2", "5")),
    "older spectral norm": (lambda: spectral_norm(nn.Conv2d(8, 8, 3)), ("0", "2", "5")),
    "mask": (lambda: masks.l1_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5), ("0", "2", "5")),
    "three dimensions": (lambda: nn.Conv3d(8, 8, 3, padding=1), ("0", "2", "5")),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_the_simulation_rounds_computed_weights_and_volumes_as_the_file_does(name: str) -> None:
    torch.manual_seed(0)
    middle, layers = COMPUTED[name][0](), COMPUTED[name][1]
    deep = isinstance(middle, nn.Conv3d)
    stem = nn.Conv3d(2, 8, 3) if deep else nn.Conv2d(2, 8, 3)
    pool = nn.AdaptiveAvgPool3d(1) if deep else nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(stem, nn.ReLU(), middle, pool, nn.Flatten(), nn.Linear(8, 4)).eval()
    inputs = torch.randn(16, 2, *[5 if deep else 8] * (3 if deep else 2))
    simulated_in, stored = private_copy(model), private_copy(model)
    store_computed_weights(stored)
    proto = export_onnx(stored, (inputs,))
    applied = QuantizeStatic().apply(proto, Samples(inputs))
    simulation = FakeQuantization(simulated_in, [(inputs,)], LIMITS[weight_bits()])
    assert simulation.layers == layers
    assert applied.report["quantized_weights"] == len(layers)
    with torch.no_grad():
        simulated = simulated_in(inputs).numpy()
    actual = OnnxRuntimeModel(applied.model).run({"input": inputs.numpy()})
    original = OnnxRuntimeModel(proto).run({"input": inputs.numpy()})
    assert np.linalg.norm(simulated - actual) < 0.7 * np.linalg.norm(original - actual)


def test_a_trained_residual_network_decides_as_its_file(tiny_task: Task) -> None:
    batches = [inputs for inputs, _ in tiny_task.calibration.batches(64)]
    images = torch.cat([inputs[0] for inputs, _ in open_once(tiny_task.test).batches(64)])
    proto = export_onnx(tiny_task.model, tiny_task.example)
    file = QuantizeStatic().apply(proto, Samples(torch.cat([inputs[0] for inputs in batches]))).model
    model = _copied(tiny_task.model)
    simulation = FakeQuantization(model, batches, LIMITS[weight_bits()])
    assert _steps_of_simulation(simulation) == pytest.approx(_steps_of_file(file), rel=1e-4)
    with torch.no_grad():
        simulated = model(images).numpy()
    actual = OnnxRuntimeModel(file).run({"input": images.numpy()})
    assert (simulated.argmax(1) == actual.argmax(1)).mean() >= 0.99
    assert np.abs(simulated - actual).max() < 0.05 * np.abs(actual).max()


def _copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval()


def _steps_of_file(file: onnx.ModelProto) -> list[float]:
    """Distinct steps of activations, ascending; those of weights and biases are one a channel."""
    tensors = {tensor.name: tensor for tensor in file.graph.initializer}
    scales = [tensors[node.input[1]] for node in file.graph.node if node.op_type == "DequantizeLinear"]
    return sorted({round(float(numpy_helper.to_array(scale)), 7) for scale in scales if not scale.dims})


def _steps_of_simulation(simulation: FakeQuantization) -> list[float]:
    return sorted({round(scale, 7) for scale in simulation.scales()})
