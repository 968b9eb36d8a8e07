"""Tensors in which unsigned INT8 leaves nothing of what tells their values apart.

One scale serves the whole tensor, and its range holds zero. So values far from zero that differ little round
to one step, and so do scores beside the -1e9 that masks some of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATION_LEVELS = 255
_SAMPLE = 1 << 16
"""Values that are looked at, evenly spaced."""
_FEW = 0.05
_MASK = 1e3
"""Smallest magnitude of a value that masks others."""


def why_too_coarse(values: Tensor, *, may_mask: bool = True) -> str | None:
    """Why INT8 cannot hold these values; None where it can.

    Values are lost where the middle half of them lies within one step: of those below a quarter of the peak
    where the peak masks them, else of all. Zero is exact in any range and does not count; neither do values
    that are all the same.

    Args:
        values: Float tensor of any shape.
        may_mask: Whether large values may be masks. What a layer reads or writes has none: there an input or
            a channel of another scale is large, and a layer chosen by measured error is what helps.
    """
    flat = values.detach().reshape(-1).float()
    if not torch.isfinite(flat).all():
        return "its values are not all finite"
    low, high = (float(end) for end in torch.aminmax(flat)) if len(flat) else (0.0, 0.0)
    step = (max(high, 0.0) - min(low, 0.0)) / ACTIVATION_LEVELS
    sample = flat[:: -(-len(flat) // _SAMPLE)] if len(flat) else flat
    sample, peak = sample[sample != 0], max(high, -low)
    small = sample[sample.abs() < peak / 4]
    if len(small) <= _FEW * len(sample):
        small, told = sample, "its values lie far from zero and close together"
    elif may_mask and peak >= _MASK:
        told = f"values up to {peak:.3g} mask the others"
    else:
        return None
    if not len(small):
        return None
    first, last = (float(end) for end in torch.quantile(small, torch.tensor([0.25, 0.75])))
    return f"{told}: a step of INT8 is {step:.3g}" if 0 < last - first < step else None
