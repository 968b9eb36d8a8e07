"""Types that several layers share: one alias each."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
"""An array of floats."""

Direction = Literal["minimize", "maximize"]
"""Which values of an objective are better, in Optuna's words."""
