from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.errors import TaskError
from petra_optuna.nn.training import (
    mean_absolute_error,
    mean_squared_error,
    output_matching_loss,
    sigmoid_label_loss,
    soft_label_loss,
)
from petra_optuna.tasks.distilling import distillation_of

Loss = Callable[[Tensor, Tensor], Tensor]


def _outputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _binary(*shape: int) -> Tensor:
    return (_outputs(*shape) > 0.3).float()


def _tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def _focal(outputs: Tensor, targets: Tensor) -> Tensor:
    plain = functional.binary_cross_entropy_with_logits(outputs, targets.float(), reduction="none")
    return ((1 - (-plain).exp()) ** 2 * plain).mean()


def _mixed(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets) + 0.1 * functional.multi_margin_loss(outputs, targets)


def _of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy(outputs, targets)


INDICES = torch.arange(4)
CLASSES: dict[str, tuple[Loss, Tensor, Tensor, int]] = {
    "function": (functional.cross_entropy, _outputs(4, 5), INDICES, 1),
    "module": (nn.CrossEntropyLoss(weight=torch.ones(5)), _outputs(4, 5), INDICES, 1),
    "partial": (functools.partial(functional.cross_entropy, label_smoothing=0.1), _outputs(4, 5), INDICES, 1),
    "own": (_mixed, _outputs(4, 5), INDICES, 1),
    "pixels": (functional.cross_entropy, _outputs(4, 5, 3, 3), torch.zeros(4, 3, 3).long(), 1),
    "tokens": (_tokens, _outputs(4, 7, 5), torch.zeros(4, 7).long(), 2),
    "as many tokens as words": (_tokens, _outputs(4, 7, 7), torch.zeros(4, 7).long(), 2),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_softmax_loss_gets_soft_labels_over_its_axis_averaged_over_positions(name: str) -> None:
    loss, outputs, targets, axis = CLASSES[name]
    chosen = distillation_of(None, loss, outputs, targets)
    teacher = outputs + torch.randn_like(outputs)
    rows = [part.movedim(axis, -1).flatten(0, -2) for part in (outputs, teacher)]
    expected = functional.kl_div(
        rows[0].log_softmax(1), rows[1].log_softmax(1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(chosen(outputs, teacher, 1.0), expected)


LABELS: dict[str, tuple[Loss, Tensor, Tensor]] = {
    "one logit, flat": (functional.binary_cross_entropy_with_logits, _outputs(8), _binary(8)),
    "one logit, a column": (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
        _outputs(8, 1),
        _binary(8, 1),
    ),
    "several labels": (nn.BCEWithLogitsLoss(), _outputs(8, 5), _binary(8, 5)),
    "pixels": (_focal, _outputs(8, 1, 3, 3), _binary(8, 1, 3, 3)),
    "own": (_focal, _outputs(8), _binary(8).long()),
    "hinge": (
        lambda o, t: functional.relu(1 - o * (2 * t.float() - 1)).mean(),
        _outputs(8, 5),
        _binary(8, 5).long(),
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_loss_of_labels_gets_the_divergence_of_independent_labels(name: str) -> None:
    loss, outputs, targets = LABELS[name]
    assert distillation_of(None, loss, outputs, targets) is sigmoid_label_loss


def test_the_divergence_of_labels_is_that_of_two_classes_each() -> None:
    student, teacher = _outputs(6, 3), _outputs(6, 3).flip(0)
    pairs = [torch.stack([part, torch.zeros_like(part)], -1).flatten(0, 1) for part in (student, teacher)]
    torch.testing.assert_close(sigmoid_label_loss(student, teacher, 3.0), soft_label_loss(*pairs, 3.0))


VALUES: dict[str, tuple[Loss, Tensor, Tensor]] = {
    "squares": (mean_squared_error, _outputs(8, 1), _outputs(8)),
    "absolute": (nn.L1Loss(), _outputs(8, 3), _outputs(8, 3)),
    "own": (lambda o, t: (o - t).abs().pow(1.5).mean(), _outputs(8, 3), _outputs(8, 3)),
    "binary targets": (lambda o, t: (o - t).square().mean(), _outputs(8), _binary(8)),
    "counts": (lambda o, t: (o.exp() - t * o).mean(), _outputs(8), torch.arange(8)),
    "probabilities": (_of_probabilities, _outputs(8, 3).sigmoid(), _binary(8, 3)),
    "a distribution": (lambda o, t: -o[range(4), t].log().mean(), _outputs(4, 5).softmax(1), INDICES),
}


@pytest.mark.parametrize("name", VALUES)
def test_all_others_are_matched_by_value(name: str) -> None:
    loss, outputs, targets = VALUES[name]
    assert distillation_of(None, loss, outputs, targets) is output_matching_loss


def test_it_can_be_said() -> None:
    def own(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        return (student - teacher).abs().mean()

    given: Any = (functional.cross_entropy, _outputs(4, 5), INDICES)
    assert distillation_of("values", *given) is output_matching_loss
    assert distillation_of("labels", *given) is sigmoid_label_loss
    assert distillation_of("classes", *given) is soft_label_loss
    assert distillation_of(own, *given) is own


@pytest.mark.parametrize(
    ("asked", "shape", "reason"),
    [
        ("softmax", (4, 5), "must be one of classes, labels, values"),
        ("classes", (4, 1), "does not pull"),
        ("classes", (4,), "the distillation loss fails"),
        (lambda *_: torch.tensor(1.0), (4, 5), "the distillation loss fails"),
    ],
)
def test_what_cannot_pull_is_refused(asked: Any, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(TaskError, match=reason) as refused:
        distillation_of(asked, mean_squared_error, _outputs(*shape), _outputs(*shape))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("loss", [mean_squared_error, mean_absolute_error])
def test_values_are_matched_on_the_scale_of_the_loss(loss: Loss) -> None:
    scaled = functools.partial(loss, scale=70.0)
    outputs, targets = 300 + 70 * _outputs(8, 1), 300 + 70 * _outputs(8)
    chosen = distillation_of(None, scaled, outputs, targets)
    expected = functional.mse_loss(outputs / 70, outputs.flip(0) / 70)
    torch.testing.assert_close(chosen(outputs, outputs.flip(0), 1.0), expected)
    unscaled = distillation_of(None, loss, outputs, targets)
    assert unscaled is output_matching_loss
