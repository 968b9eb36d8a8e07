"""The only place that imports torchvision.

With a CPU-only torch, torchvision's compiled part is missing, and its import fails where it describes
two operators of that part. Declaring the two lets the import pass. Calling them would still fail, but
nothing here does.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


@functools.cache
def load_torchvision() -> Any:
    """Import torchvision on the first call: that takes seconds, and most tasks do not need it."""
    try:
        import torchvision
    except RuntimeError as error:
        if str(error) != "operator torchvision::nms does not exist":
            raise
        for name in ("nms", "qnms"):
            signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _LIBRARY.define(signature)  # type: ignore[no-untyped-call]
        import torchvision
    return torchvision
