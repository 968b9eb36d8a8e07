"""Tensors in which unsigned INT8 leaves nothing of what tells their values apart.

One scale serves the whole tensor, and its range holds zero. So what differs little from sample to sample and
lies far from zero rounds to the same values, and so do scores beside the -1e9 that masks some of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATION_LEVELS = 255
_SAMPLE = 1 << 16
"""Values that are looked at for masks, evenly spaced."""
_FEW = 0.05
_MASK = 1e3
"""Smallest magnitude of a value that masks others."""


def why_too_coarse(values: Tensor, *, may_mask: bool = True, by_sample: bool = True) -> str | None:
    """Why INT8 cannot hold these values; None where it can.

    Args:
        values: Float tensor of any shape.
        may_mask: Whether large values may be masks. What a layer reads or writes has none: there an input or
            a channel of another scale is large, and a layer chosen by measured error is what helps.
        by_sample: Whether the first dimension counts samples, which shall differ after rounding.
    """
    values = values.detach().float()
    if not torch.isfinite(values).all():
        return "its values are not all finite"
    if values.numel() == 0:
        return None
    low, high = (float(end) for end in torch.aminmax(values))
    step = (max(high, 0.0) - min(low, 0.0)) / ACTIVATION_LEVELS
    if by_sample and values.dim() and len(values) > 1:
        spread = float(values.var(0, correction=0).mean().sqrt())
        if 0 < spread < step:
            return f"samples differ by {spread:.3g}, a step of INT8 is {step:.3g}"
    peak = max(high, -low)
    if may_mask and peak >= _MASK and _is_masked(values.reshape(-1), peak, step):
        return f"values up to {peak:.3g} mask the others, a step of INT8 is {step:.3g}"
    return None


def _is_masked(flat: Tensor, peak: float, step: float) -> bool:
    """Whether the middle half of the values below a quarter of the peak lies within one step.

    Zero is exact in any range and does not count; neither do values that are all the same.
    """
    sample = flat[:: -(-len(flat) // _SAMPLE)]
    sample = sample[sample != 0]
    small = sample[sample.abs() < peak / 4]
    if len(small) <= _FEW * len(sample):
        return False
    first, last = (float(end) for end in torch.quantile(small, torch.tensor([0.25, 0.75])))
    return 0 < last - first < step
