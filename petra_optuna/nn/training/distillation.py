"""Losses that pull a student's outputs towards a teacher's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, averaged over the batch.

    Hinton, Vinyals and Dean, arXiv 1503.02531, section 2: the factor T^2 keeps gradients of the same
    size at every temperature.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C), without gradient.
        temperature: T > 0; higher shows more of the teacher's ranking of wrong classes.
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def output_matching_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the outputs, for regression.

    Args:
        student: Outputs of any shape.
        teacher: Outputs of the same shape, without gradient.
        temperature: Has no meaning here; taken so that all distillation losses are called alike.
    """
    return functional.mse_loss(student, teacher)
