"""Types that several layers share: one alias each."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
"""An array of floats."""

TrainPrecision = Literal["auto", "float32", "bfloat16"]
"""In which type forward passes of training run; ``auto`` decides by the device and the model."""

Direction = Literal["minimize", "maximize"]
"""Which values of an objective are better, in Optuna's words."""
