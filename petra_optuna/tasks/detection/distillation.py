"""How a detector follows another one."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from petra_optuna.models.yolo import OBJECTNESS, SCORES


def detection_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Objectness everywhere, boxes and classes by the teacher's objectness; divided by the sum of that.

    Mehta and Ozturk, arXiv 1805.06361, section 3.2: most positions show background, where a teacher's boxes
    and classes mean nothing. Objectness and classes are matched by cross-entropy less the teacher's entropy,
    boxes by the squared difference of their sigmoids.

    Args:
        student: Raw predictions (B, positions, 5 + C).
        teacher: Raw predictions of the same shape, without gradient.
        temperature: T > 0, by which logits of objectness and classes are divided.
    """
    present = teacher[..., OBJECTNESS].sigmoid()
    apart = student[..., :OBJECTNESS].sigmoid() - teacher[..., :OBJECTNESS].sigmoid()
    scores = _divergence(student[..., OBJECTNESS:] / temperature, teacher[..., OBJECTNESS:] / temperature)
    classes = scores[..., SCORES - OBJECTNESS :].sum(-1) * temperature**2
    objectness = scores[..., 0] * temperature**2
    total = objectness + present * (apart.square().sum(-1) + classes)
    return total.sum() / present.sum().clamp(min=1.0)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    share = teacher.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits
    return cross_entropy(student, share, reduction="none") - cross_entropy(teacher, share, reduction="none")
