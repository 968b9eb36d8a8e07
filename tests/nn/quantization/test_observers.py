"""The rounding of weights and activations, against hand values and numpy."""

from __future__ import annotations

import numpy as np
import torch

from petra_optuna.nn.quantization.observers import fake_quantize_activation, fake_quantize_weight


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


def test_weights_of_seven_bits_along_another_axis_against_numpy() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    scale = np.abs(weight.numpy()).max(0) / 64
    expected = np.round(weight.numpy() / scale) * scale
    np.testing.assert_allclose(fake_quantize_weight(weight, 64, axis=1).numpy(), expected, atol=1e-6)


def test_rounding_commutes_with_a_batch_norm_of_either_sign() -> None:
    """Scaling an output channel, by a negative number as well, scales its rounding."""
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    gamma = torch.tensor([[0.5], [-2.0], [3.0]])
    torch.testing.assert_close(fake_quantize_weight(weight * gamma), fake_quantize_weight(weight) * gamma)
