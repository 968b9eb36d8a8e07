"""Finds how to serve a file: a nested study over settings, whose answer later files of the shape share.

Where a finished nested study of the same shape, device and objective is in the database, it answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage

from petra_optuna.inference.device import EdgeDevice
from petra_optuna.inference.objective import (
    ENERGY,
    InferenceObjective,
    inference_objective,
)
from petra_optuna.inference.recommendation import Recommendation
from petra_optuna.inference.search import FINALISTS, InferenceSearch
from petra_optuna.inference.space import MAX_BATCH, InferenceSpace
from petra_optuna.measurement import (
    COUNTERS,
    DeviceProfile,
    SettingProcess,
    shape_signature,
)
from petra_optuna.samplers import Groups, algorithm, sampler_of

ANSWER: Final = "petra:recommendation"
"""Key of a nested study's answer (``Recommendation``); a study without it is not finished."""
REQUEST: Final = "petra:inference"
"""Key of what a nested study was asked."""
DEFAULT_ALGORITHM = "tpe"
MOST_MEASUREMENTS = 30
SHARE = 10
"""One in so many settings is measured, at most ``MOST_MEASUREMENTS``."""
_BEYOND_FIRST = 2
"""Least settings that are measured besides those where a search begins and those that are measured again."""
TIMEOUT_S = 600.0
_NESTED = "inference-"
Quiet = Callable[[], AbstractContextManager[None]]


def is_nested(study_name: str) -> bool:
    """Whether a study of that name is a nested one, which no user names."""
    return study_name.startswith(_NESTED)


@dataclasses.dataclass(frozen=True)
class InferenceTuner:
    """Finds settings for files, and remembers them in a database.

    Attributes:
        storage: Database of the nested studies.
        device: Device that the files are served on.
        cores: Numbers of the cores that emulate it.
        objective: What settings are tuned for.
        max_batch: Largest batch size.
        algorithm: Name of the search algorithm (``samplers.ALGORITHMS``).
        groups: Other algorithms -> parameters that they draw.
        seed: Seed of the search.
        energy: ``counters`` or an estimator of energy; energy is measured for its objective only.
        timeout_s: Seconds after which a search measures nothing new.
        measurements: Settings that a search measures; a tenth of all, at most 30, when None.
    """

    storage: BaseStorage
    device: EdgeDevice
    cores: tuple[int, ...]
    objective: InferenceObjective
    max_batch: int = MAX_BATCH
    algorithm: str = DEFAULT_ALGORITHM
    groups: Groups = dataclasses.field(default_factory=dict)
    seed: int = 0
    energy: str = COUNTERS
    timeout_s: float = TIMEOUT_S
    measurements: int | None = None

    def __post_init__(self) -> None:
        """Check the algorithm, and keep to the cores that there are."""
        algorithm(self.algorithm)
        object.__setattr__(self, "device", self.device.on(len(self.cores)))

    @property
    def space(self) -> InferenceSpace:
        """The settings that are searched."""
        return InferenceSpace.of(self.device, self.max_batch)

    @property
    def budget(self) -> int:
        """Settings that a search measures, those that are measured again included."""
        if self.measurements is not None:
            return self.measurements
        if algorithm(self.algorithm).exhaustive:
            return self.space.size + FINALISTS
        least = len(self.space.first_settings()) + _BEYOND_FIRST + FINALISTS
        return min(MOST_MEASUREMENTS, max(least, self.space.size // SHARE))

    def shape(self, file: Path, feeds: Mapping[str, np.ndarray]) -> str:
        """Signature of the file's shape and of its inputs', whose sizes a graph of dynamic axes leaves open.

        Args:
            file: ONNX file.
            feeds: Sample inputs by name, batch first.

        Raises:
            MeasurementFailed: When the file cannot be read.
        """
        return shape_signature(file, [list(values.shape[1:]) for values in feeds.values()])

    def study_name(self, shape: str) -> str:
        """Name of the nested study that answers for a shape."""
        text = json.dumps([shape, self._request()], sort_keys=True)
        return f"{_NESTED}{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def known(self, shape: str) -> Recommendation | None:
        """The answer of a finished nested study; None where there is none."""
        name = self.study_name(shape)
        if name not in optuna.get_all_study_names(self.storage):
            return None
        answer = optuna.load_study(study_name=name, storage=self.storage).user_attrs.get(ANSWER)
        if answer is None:
            return None
        return dataclasses.replace(Recommendation.from_dict(answer), from_history=True)

    def recommend(
        self, file: Path, feeds: Mapping[str, np.ndarray], quiet: Quiet = contextlib.nullcontext
    ) -> Recommendation:
        """How to serve the file: from history where it is known, else by a search.

        Args:
            file: ONNX file, with any weights.
            feeds: Sample inputs by name, batch first.
            quiet: Gives the block in which the last measurements are taken and nothing else may run.

        Raises:
            UserError: When the device's memory does not hold the model, or nothing counts the energy.
            MeasurementFailed: When no setting can be measured.
        """
        known = self.known(self.shape(file, feeds))
        if known is not None:
            return known
        with self.searched(file, feeds) as search, quiet():
            return self.concluded(search)

    @contextlib.contextmanager
    def searched(self, file: Path, feeds: Mapping[str, np.ndarray]) -> Iterator[InferenceSearch]:
        """A search that has measured all settings but the last ones; the block may conclude it.

        Raises:
            UserError: When the device's memory does not hold the model, or nothing counts the energy.
        """
        with self.process(file, feeds) as process:
            study = self._study(self.shape(file, feeds))
            search = InferenceSearch(self.device, self.space, self.objective, self.budget, process, study)
            search.run(file, self.timeout_s)
            yield search

    def process(self, file: Path, feeds: Mapping[str, np.ndarray]) -> SettingProcess:
        """What measures settings of the file on the device; a context manager."""
        return SettingProcess(
            file,
            feeds,
            self.cores,
            device=self.device.device,
            memory_limit_bytes=self.device.memory_bytes,
            energy=self.energy if self.objective.name == ENERGY else None,
        )

    def concluded(self, search: InferenceSearch) -> Recommendation:
        """The answer of a search, which is history from then on.

        Raises:
            MeasurementFailed: When no setting can be measured.
        """
        answer = search.conclude(search.study.user_attrs[REQUEST]["shape"])
        search.study.set_user_attr(ANSWER, answer.to_dict())
        return answer

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form without the storage, for a process of its own."""
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        del fields["storage"]
        return {**fields, "device": self.device.to_dict(), "objective": self.objective.name}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], storage: BaseStorage) -> InferenceTuner:
        """Inverse of ``to_dict``."""
        return cls(
            storage=storage,
            **{
                **data,
                "device": EdgeDevice.from_dict(data["device"]),
                "cores": tuple(data["cores"]),
                "objective": inference_objective(data["objective"]),
            },
        )

    def _study(self, shape: str) -> optuna.Study:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.create_study(
                storage=self.storage,
                study_name=self.study_name(shape),
                direction=self.objective.direction,
                sampler=sampler_of(self.algorithm, self.groups, self.space.parameters, self.seed),
                load_if_exists=True,
            )
            study.set_metric_names([self.objective.figure])
        study.set_user_attr(REQUEST, {**self._request(), "shape": shape})
        return study

    def _request(self) -> dict[str, Any]:
        """What an answer depends on besides the file."""
        hosts = {
            name: DeviceProfile.named(f"{self.device.device}@{name}").host() for name in self.device.runtimes
        }
        for host in hosts.values():
            del host["cores"]  # those that this process may use; the device's count
        return {
            "device": self.device.to_dict(),
            "objective": self.objective.name,
            "energy": self.energy if self.objective.name == ENERGY else None,
            "max_batch": self.max_batch,
            "algorithm": self.algorithm,
            "groups": {name: sorted(names) for name, names in self.groups.items() if names},
            "measurements": self.budget,
            "hosts": hosts,
        }
