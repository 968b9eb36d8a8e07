from __future__ import annotations

import copy

import torch
from torch import nn

from petra_optuna.nn.quantization.fake_quant import FakeQuantization
from petra_optuna.nn.quantization.observers import fake_quantize_activation, fake_quantize_weight


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).eval()


def batches() -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 2, 4, 4, generator=generator),) for _ in range(2)]


def test_the_forward_pass_equals_rounding_by_hand() -> None:
    model = net()
    plain = copy.deepcopy(model)
    FakeQuantization(model, batches())
    (images,) = batches()[0]
    seen = torch.cat([inputs for (inputs,) in batches()])
    features, outputs = plain[:4](seen).detach(), plain(seen).detach()
    conv, norm, _, _, linear = plain
    rounded = fake_quantize_activation(images, seen.min(), seen.max())
    hidden = nn.functional.conv2d(rounded, fake_quantize_weight(conv.weight), conv.bias, padding=1)
    hidden = torch.relu(norm(hidden))
    hidden = fake_quantize_activation(hidden.flatten(1), features.min(), features.max())
    hidden = nn.functional.linear(hidden, fake_quantize_weight(linear.weight), linear.bias)
    expected = fake_quantize_activation(hidden, outputs.min(), outputs.max())
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
    model.train()
    model[1].eval()  # its statistics would follow as well
    model(100 * images)
    model.eval()
    assert not torch.equal(model(images), before)


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    model[1].weight = model[0].weight
    FakeQuantization(model, [(torch.randn(2, 4),)]).remove()
    assert model[1].weight is model[0].weight


def test_a_weight_that_a_function_reads_is_rounded_and_one_that_nothing_reads_is_not() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.read, self.idle = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.used(values), self.read.weight)

    model = Reads().eval()
    assert FakeQuantization(model, [(torch.randn(2, 4),)]).layers == ("used", "read")


def test_removal_leaves_no_attribute_behind() -> None:
    model = net()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    simulation = FakeQuantization(model, batches())
    simulation.remove()
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


def test_an_addition_in_place_stays_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            total = self.layer(values)
            total.add_(values)  # the result is not assigned
            return total

    torch.manual_seed(0)
    model, values = InPlace().eval(), torch.randn(8, 4)
    expected = model(values).detach()
    FakeQuantization(model, [(values,)])
    error = (model(values) - expected).abs().max()
    assert 0 < error < 0.1
    model(values).sum().backward()
    assert model.layer.weight.grad is not None


def test_a_tensor_that_calibration_has_not_seen_stays_in_float() -> None:
    class OnlyInTraining(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            outputs = self.layer(values)
            return outputs + self.layer(values.flip(0)) if self.training else outputs

    model, values = OnlyInTraining().eval(), torch.randn(8, 4)
    FakeQuantization(model, [(values,)])
    assert model.train()(values).isfinite().all()


def test_weights_stored_for_float_arithmetic_are_rounded() -> None:
    class Events(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.gru = nn.Embedding(9, 4), nn.GRU(4, 5, batch_first=True, bidirectional=True)

        def forward(self, codes: torch.Tensor) -> torch.Tensor:
            outputs, _ = self.gru(self.table(codes))
            return outputs[:, -1]

    torch.manual_seed(0)
    model = Events().eval()
    codes = torch.arange(27).reshape(3, 9) % 9
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.table.weight.copy_(fake_quantize_weight(by_hand.table.weight, axis=1))
        for name, weight in by_hand.gru.named_parameters():
            if weight.dim() == 2:
                weight.copy_(fake_quantize_weight(by_hand.gru.get_parameter(name)))
    simulation = FakeQuantization(model, [(codes,)], limit=64)  # the limit is that of INT8 arithmetic
    assert simulation.layers == ("table", "gru")
    torch.testing.assert_close(model(codes), by_hand(codes))
