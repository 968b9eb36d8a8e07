"""The settings among which a file's best one is searched."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from petra_optuna.errors import UserError
from petra_optuna.inference.device import EdgeDevice
from petra_optuna.measurement import InferenceSetting

MAX_BATCH = 100
"""Largest batch of EDGETUNE, section 5.1."""


@dataclasses.dataclass(frozen=True)
class InferenceSpace:
    """Batch sizes, cores, threads and runtimes.

    Attributes:
        cores: Cores of the device.
        runtimes: Names of the runtimes.
        max_batch: Largest batch size.

    Raises:
        UserError: On construction, when the largest batch size is below 1.

    Example:
        >>> InferenceSpace(cores=2, runtimes=("onnxruntime",)).size
        300
    """

    cores: int
    runtimes: tuple[str, ...]
    max_batch: int = MAX_BATCH

    def __post_init__(self) -> None:
        """Check the largest batch size."""
        if self.max_batch < 1:
            raise UserError(f"`max_batch` must be at least 1, got {self.max_batch}")

    @classmethod
    def of(cls, device: EdgeDevice, max_batch: int = MAX_BATCH) -> InferenceSpace:
        """The settings of a device."""
        return cls(device.cores, device.runtimes, max_batch)

    @property
    def parameters(self) -> Mapping[str, BaseDistribution]:
        """Distributions by name; ``threads`` above ``cores`` mean one thread a core."""
        return {
            "batch": IntDistribution(1, self.max_batch),
            "cores": IntDistribution(1, self.cores),
            "threads": IntDistribution(1, self.cores),
            "runtime": CategoricalDistribution(self.runtimes),
        }

    @property
    def size(self) -> int:
        """Number of different settings."""
        return self.max_batch * len(self.runtimes) * self.cores * (self.cores + 1) // 2

    def settings(self) -> list[InferenceSetting]:
        """All settings."""
        batches = range(1, self.max_batch + 1)
        return [
            InferenceSetting(batch, threads, cores, runtime)
            for runtime, cores, batch in itertools.product(self.runtimes, range(1, self.cores + 1), batches)
            for threads in range(1, cores + 1)
        ]

    def setting(self, parameters: Mapping[str, Any]) -> InferenceSetting:
        """The setting of these parameters."""
        cores = parameters["cores"]
        threads = min(parameters["threads"], cores)
        return InferenceSetting(parameters["batch"], threads, cores, parameters["runtime"])

    def first_settings(self) -> list[InferenceSetting]:
        """Where a search begins: what people take without one, in its order.

        One sample by all threads comes first: recommendations are compared with it.
        """
        first = self.runtimes[0]
        batches = (1, min(16, self.max_batch), self.max_batch)
        whole = [InferenceSetting(batch, self.cores, self.cores, first) for batch in batches]
        single = InferenceSetting(1, 1, 1, first)
        others = [dataclasses.replace(whole[1], runtime=name) for name in self.runtimes[1:]]
        return list(dict.fromkeys((*whole, *others, single)))
