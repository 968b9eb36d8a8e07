from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from petra_optuna.nn.fake_quant import FakeQuantization, fake_quantize_activation, fake_quantize_weight


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).eval()


def batches() -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 2, 4, 4, generator=generator),) for _ in range(2)]


def test_weights_are_rounded_as_int8_per_channel() -> None:
    weight = torch.tensor([[1.27, -0.5, 0.004], [-12.7, 6.26, 0.0]])
    expected = torch.tensor([[127 * 0.01, -50 * 0.01, 0.0], [-127 * 0.1, 63 * 0.1, 0.0]])
    torch.testing.assert_close(fake_quantize_weight(weight), expected)


def test_weights_of_four_dimensions_against_numpy() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    array = weight.numpy()
    scale = np.abs(array).reshape(5, -1).max(1)[:, None, None, None] / 127
    expected = np.clip(np.round(array / scale), -127, 127) * scale
    np.testing.assert_allclose(fake_quantize_weight(weight).numpy(), expected, atol=1e-6)


def test_activations_are_rounded_as_unsigned_int8_and_zero_is_exact() -> None:
    low, high = torch.tensor(-1.0), torch.tensor(1.55)  # scale 0.01, zero point 100
    values = torch.tensor([-3.0, -1.0, -0.004, 0.0, 0.006, 1.0, 9.0])
    expected = torch.tensor([-1.0, -1.0, 0.0, 0.0, 0.01, 1.0, 1.55])
    torch.testing.assert_close(fake_quantize_activation(values, low, high), expected)


def test_positive_activations_keep_zero_in_range() -> None:
    values = fake_quantize_activation(torch.tensor([0.0, 3.0]), torch.tensor(2.0), torch.tensor(4.0))
    torch.testing.assert_close(values, torch.tensor([0.0, 3.0]), atol=4 / 255 / 2, rtol=0)
    assert values[0] == 0


def test_gradients_pass_straight_through_inside_the_range_only() -> None:
    values = torch.tensor([-3.0, 0.123, 9.0], requires_grad=True)
    fake_quantize_activation(values, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 0.0]
    weight = torch.randn(3, 4, requires_grad=True)
    fake_quantize_weight(weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(3, 4))


def test_the_forward_pass_equals_rounding_by_hand() -> None:
    model = net()
    plain = copy.deepcopy(model)
    FakeQuantization(model, batches())
    (images,) = batches()[0]
    seen = torch.cat([inputs for (inputs,) in batches()])
    features = plain[:4](seen).detach()
    conv, norm, _, _, linear = plain
    rounded = fake_quantize_activation(images, seen.min(), seen.max())
    hidden = nn.functional.conv2d(rounded, fake_quantize_weight(conv.weight), conv.bias, padding=1)
    hidden = torch.relu(norm(hidden))
    hidden = fake_quantize_activation(hidden.flatten(1), features.min(), features.max())
    expected = nn.functional.linear(hidden, fake_quantize_weight(linear.weight), linear.bias)
    torch.testing.assert_close(model(images), expected)
    assert not torch.equal(model(images), plain(images))


def test_removal_leaves_plain_modules_with_the_trained_weights_in_their_order() -> None:
    model = net()
    reference = copy.deepcopy(model)
    simulation = FakeQuantization(model, batches())
    assert simulation.layers == ("0", "4")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5
    simulation.remove()
    assert [type(module) for module in model.modules()] == [type(module) for module in reference.modules()]
    assert list(model.state_dict()) == list(reference.state_dict())
    assert [name for name, _ in model.named_parameters()] == [
        name for name, _ in reference.named_parameters()
    ]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, reference.get_parameter(name) + 0.5)
        assert isinstance(parameter, nn.Parameter)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.5
    (images,) = batches()[0]
    assert torch.equal(model(images), reference(images))


def test_ranges_follow_in_training_and_stand_in_evaluation() -> None:
    model = net()
    FakeQuantization(model, batches())
    (images,) = batches()[0]
    before = model(images)
    model(100 * images)
    assert torch.equal(model(images), before)
    model[0].train()
    model(100 * images)
    model[0].eval()
    assert not torch.equal(model(images), before)


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    model[1].weight = model[0].weight
    FakeQuantization(model, [(torch.randn(2, 4),)]).remove()
    assert model[1].weight is model[0].weight


def test_a_layer_that_is_never_called_is_left_alone() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.read = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.used(values), self.read.weight)

    model = Reads().eval()
    assert FakeQuantization(model, [(torch.randn(2, 4),)]).layers == ("used",)
