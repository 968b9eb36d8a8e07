"""The only place that imports torchvision.

With a CPU-only torch, torchvision's compiled part is missing and its import fails while it describes
two of that part's operators. Declaring the two lets the import pass; calling them would still fail,
and nothing here does.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


@functools.cache
def load_torchvision() -> Any:
    """The module, imported when it is first asked for: that takes seconds, and most tasks do without."""
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
