from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from petra_optuna.nn.training.distillation import output_matching_loss, soft_label_loss


def test_the_formula_by_hand() -> None:
    temperature = 2.0
    student, teacher = [1.0, 0.0], [3.0, -1.0]

    def probabilities(logits: list[float]) -> list[float]:
        powers = [math.exp(value / temperature) for value in logits]
        return [power / sum(powers) for power in powers]

    pairs = zip(probabilities(teacher), probabilities(student), strict=True)
    expected = temperature**2 * sum(p * math.log(p / q) for p, q in pairs)
    given = soft_label_loss(torch.tensor([student] * 3), torch.tensor([teacher] * 3), temperature)
    assert given.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_zero_exactly_where_the_student_agrees(temperature: float) -> None:
    teacher = torch.randn(5, 7)
    assert soft_label_loss(teacher + 3.0, teacher, temperature).item() == pytest.approx(0.0, abs=1e-5)
    assert soft_label_loss(-teacher, teacher, temperature).item() > 0.1


def test_gradient_is_that_of_soft_cross_entropy() -> None:
    student, teacher = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    (given,) = torch.autograd.grad(soft_label_loss(student, teacher, 3.0), student)
    soft = 9.0 * functional.cross_entropy(student / 3.0, (teacher / 3.0).softmax(1))
    (expected,) = torch.autograd.grad(soft, student)
    torch.testing.assert_close(given, expected)


def test_regression_matches_outputs_whatever_the_temperature() -> None:
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    assert output_matching_loss(student, teacher, 1.0).item() == 2.5
    assert output_matching_loss(student, teacher, 8.0).item() == 2.5
    assert output_matching_loss(student, teacher, 8.0, scale=2.0).item() == 2.5 / 4
