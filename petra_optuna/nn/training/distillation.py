"""Losses that pull a student's outputs towards a teacher's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float, axis: int = 1) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, averaged over samples and positions.

    Hinton, Vinyals and Dean, arXiv 1503.02531, section 2: the factor T^2 keeps gradients of the same
    size at every temperature.

    Args:
        student: Logits, (B, C) or with positions, as (B, C, H, W) or (B, T, C).
        teacher: Logits of the same shape, without gradient.
        temperature: T > 0; higher shows more of the teacher's ranking of wrong classes.
        axis: Axis of the classes.
    """
    log_student = functional.log_softmax(student / temperature, dim=axis)
    log_teacher = functional.log_softmax(teacher / temperature, dim=axis)
    divergence = functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return divergence / (student.numel() // student.shape[axis]) * temperature**2


def sigmoid_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL`` of independent labels, sigmoid(teacher / T) against sigmoid(student / T); the mean of all.

    Args:
        student: Logits of any shape, one for each label.
        teacher: Logits of the same shape, without gradient.
        temperature: T > 0, as in ``soft_label_loss``.
    """
    student, teacher = student / temperature, teacher / temperature
    share = teacher.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(student, share)
    entropy = functional.binary_cross_entropy_with_logits(teacher, share)
    return (cross_entropy - entropy) * temperature**2


def output_matching_loss(student: Tensor, teacher: Tensor, temperature: float, scale: float = 1.0) -> Tensor:
    """Mean squared difference of the outputs, for regression and for probabilities.

    Args:
        student: Outputs of any shape.
        teacher: Outputs of the same shape, without gradient.
        temperature: Has no meaning here; taken so that all distillation losses are called alike.
        scale: Unit of the differences; that of the task's loss.
    """
    return functional.mse_loss(student / scale, teacher / scale)
