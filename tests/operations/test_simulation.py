"""Simulated INT8 against the INT8 file: the same tensors, the same steps, nearly the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from support.samples import Samples
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


class Attending(nn.Module):
    """Tokens (N, 6, 16) through a layer and attention under test."""

    def __init__(self, body: Callable[[Attending, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.layer, self.head = body, nn.Linear(16, 16), nn.Linear(16, 4)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.register_buffer("bias", torch.randn(6, 6))
        self.memory = nn.Parameter(torch.randn(1, 6, 16))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)  # torch's biases of attention are zero

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self, tokens).mean(1))


def _heads(net: Attending, x: Tensor) -> Tensor:
    return net.layer(x).unflatten(2, (4, 4)).transpose(1, 2)


def _dot_product(net: Attending, x: Tensor, **options: Any) -> Tensor:
    heads = _heads(net, x)
    return functional.scaled_dot_product_attention(heads, heads, heads, **options).transpose(1, 2).flatten(2)


ATTENTION: dict[str, tuple[Callable[[Attending, Tensor], Tensor], set[str]]] = {
    "self": (
        lambda net, x: net.attention(x, x, x, need_weights=False)[0],
        {"attention", "attention.out_proj"},
    ),
    "weights and mask": (
        lambda net, x: net.attention(x, x, x, attn_mask=net.bias)[0],
        {"attention", "attention.out_proj"},
    ),
    "cross": (
        lambda net, x: net.attention(net.layer(x), x, x, need_weights=False)[0],
        {"attention", "attention.out_proj", "layer"},
    ),
    "encoder layer": (
        lambda net, x: net.encoder(x),
        {f"encoder.{name}" for name in ("self_attn", "self_attn.out_proj", "linear1", "linear2")},
    ),
    "causal": (lambda net, x: _dot_product(net, x, is_causal=True), {"layer"}),
    "scaled with a bias": (lambda net, x: _dot_product(net, x, attn_mask=net.bias, scale=0.3), {"layer"}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_the_simulation_rounds_inside_attention_what_the_file_rounds(name: str) -> None:
    torch.manual_seed(0)
    body, layers = ATTENTION[name]
    model, tokens = Attending(body).eval(), torch.randn(32, 6, 16)
    proto = export_onnx(model, (tokens,))
    file = QuantizeStatic().apply(proto, Samples(tokens)).model
    simulation = FakeQuantization(model, [(tokens,)], LIMITS[weight_bits()])
    assert set(simulation.layers) == {*layers, "head"}
    assert _steps_of_simulation(simulation) == pytest.approx(_steps_of_file(file), rel=1e-4)
    with torch.no_grad():
        simulated = model(tokens).numpy()
    actual, original = (_as_written(graph, tokens) for graph in (file, proto))
    assert np.linalg.norm(simulated - actual) < 0.35 * np.linalg.norm(original - actual)


def _as_written(proto: onnx.ModelProto, tokens: Tensor) -> np.ndarray:
    """Outputs of the graph node by node; fused kernels round a few values to the other side."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (outputs,) = session.run(None, {"input": tokens.numpy()})
    return outputs


def test_values_computed_of_weights_alone_stay_as_they_are() -> None:
    """The file has them ready: a table that is read at fixed positions, a network over a buffer."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.bias = nn.Embedding(6, 16), nn.Linear(2, 16)
            self.head = nn.Linear(16, 4)
            self.register_buffer("positions", torch.arange(6))
            self.register_buffer("coordinates", torch.randn(6, 2))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(tokens + self.table(self.positions) + self.bias(self.coordinates))

    torch.manual_seed(0)
    model, tokens = Positions().eval(), torch.randn(32, 6, 16)
    file = QuantizeStatic().apply(export_onnx(model, (tokens,)), Samples(tokens)).model
    simulation = FakeQuantization(model, [(tokens,)], LIMITS[weight_bits()])
    assert simulation.layers == ("head",)
    assert _steps_of_simulation(simulation) == pytest.approx(_steps_of_file(file), rel=1e-4)


def test_what_an_int8_layer_reads_does_not_bring_an_addition_in_front_of_it_into_int8() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.norm = nn.Linear(16, 16), nn.Linear(16, 16), nn.LayerNorm(16)

        def forward(self, tokens: Tensor) -> Tensor:
            values = tokens + self.norm(self.first(tokens))
            return self.second(values + self.norm(values))

    torch.manual_seed(0)
    model, tokens = Normed().eval(), torch.randn(32, 6, 16)
    file = QuantizeStatic().apply(export_onnx(model, (tokens,)), Samples(tokens)).model
    simulation = FakeQuantization(model, [(tokens,)], LIMITS[weight_bits()])
    assert _steps_of_simulation(simulation) == pytest.approx(_steps_of_file(file), rel=1e-4)


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
    """Distinct steps of activations, ascending; those of weights and biases are one a channel.

    A single stored number is as exact in INT8 as in float.
    """
    tensors = {tensor.name: tensor for tensor in file.graph.initializer}
    scales = [
        tensors[node.input[1]]
        for node in file.graph.node
        if node.op_type == "DequantizeLinear"
        and (node.input[0] not in tensors or np.prod(tensors[node.input[0]].dims) > 1)
    ]
    return sorted({round(float(numpy_helper.to_array(scale)), 7) for scale in scales if not scale.dims})


def _steps_of_simulation(simulation: FakeQuantization) -> list[float]:
    return sorted({round(scale, 7) for scale in simulation.scales()})
