"""How to serve a file: the best setting that was found, with what it is expected to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from petra_optuna.inference.device import EdgeDevice
from petra_optuna.inference.objective import InferenceObjective, inference_objective
from petra_optuna.inference.scenarios import PolicyRecommendation, Scenario
from petra_optuna.measurement import InferenceSetting
from petra_optuna.noise import Reading


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """How to serve files of one shape on a device.

    Attributes:
        shape: Signature of the file's shape and its inputs' (``InferenceTuner.shape``).
        device: Device, with the cores that emulated it.
        objective: What the setting is best for.
        setting: The setting.
        expected: Figures in the setting by name (``objective.figures``), with their errors.
        simple: The objective's figure for one sample by all threads, which people take without a search.
        energy_source: What counted or estimated the energy; empty where nobody asked.
        measurements: Settings that were measured for it.
        settings: Settings that there are.
        study: Name of the nested study that holds them.
        from_history: Whether a finished nested study answered, without any measurement.
        requests: How requests of a scenario are served best, JSON-ready; None where nobody asked.
    """

    shape: str
    device: EdgeDevice
    objective: InferenceObjective
    setting: InferenceSetting
    expected: Mapping[str, Reading]
    simple: Reading
    energy_source: str
    measurements: int
    settings: int
    study: str
    from_history: bool = False
    requests: Mapping[str, Any] | None = None

    def for_requests(self, scenario: Scenario, served: PolicyRecommendation) -> Recommendation:
        """The recommendation with how requests of a scenario are served best."""
        asked = {"scenario": scenario.name, **dataclasses.asdict(scenario)}  # type: ignore[call-overload]
        return dataclasses.replace(self, requests={**asked, **dataclasses.asdict(served)})

    @property
    def gain(self) -> float:
        """How many times better the setting is than one sample by all threads, by the objective."""
        value = self.expected[self.objective.figure].value
        better = value / self.simple.value
        return better if self.objective.direction == "maximize" else 1 / better

    @property
    def seconds_per_sample(self) -> float:
        """Seconds of a sample in the setting, of calls one after another."""
        return 1.0 / self.expected["throughput_per_s"].value

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return {
            **dataclasses.asdict(self),
            "device": self.device.to_dict(),
            "objective": self.objective.name,
            "setting": self.setting.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recommendation:
        """Inverse of ``to_dict``."""
        return cls(
            **{
                **data,
                "device": EdgeDevice.from_dict(data["device"]),
                "objective": inference_objective(data["objective"]),
                "setting": InferenceSetting(**data["setting"]),
                "expected": {name: Reading(**reading) for name, reading in data["expected"].items()},
                "simple": Reading(**data["simple"]),
            }
        )
