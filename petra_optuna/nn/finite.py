"""Which sample of a batch has an output that is no number, and what usually gives it one."""

from __future__ import annotations

import numpy as np

_HIDDEN = (
    "attention gives NaN where a mask hides every position of a sample, as of one that is padding alone; "
    "leave such samples out"
)


def tell_samples(broken: np.ndarray) -> str:
    """The first sample that is broken, and the usual cause where others are not: ``sample 1 of 8, ...``.

    Args:
        broken: Whether each output is, (N, ...); at least one is.
    """
    samples = np.unique(np.nonzero(broken)[0])
    told = f"sample {samples[0]} of {len(broken)}, counted from 0"
    return told if len(samples) == len(broken) else f"{told}: {_HIDDEN}"
