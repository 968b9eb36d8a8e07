"""What a served file is tuned for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from petra_optuna.aliases import Direction
from petra_optuna.errors import MeasurementFailed, UserError
from petra_optuna.measurement import SettingMeasurement
from petra_optuna.noise import BETWEEN_READINGS, Reading

LATENCY, THROUGHPUT, ENERGY, MEMORY = "latency", "throughput", "energy", "memory"


@dataclasses.dataclass(frozen=True)
class InferenceObjective:
    """A figure of a served file that is tuned.

    Attributes:
        name: Name by which ``inference_objective`` finds it.
        figure: Name of the figure among those of ``figures``.
        direction: Whether less or more of it is better.
    """

    name: str
    figure: str
    direction: Direction


INFERENCE_OBJECTIVES = (
    InferenceObjective(THROUGHPUT, "throughput_per_s", "maximize"),
    InferenceObjective(LATENCY, "latency_ms", "minimize"),
    InferenceObjective(ENERGY, "energy_j", "minimize"),
    InferenceObjective(MEMORY, "peak_memory_bytes", "minimize"),
)


def inference_objective(name: str) -> InferenceObjective:
    """The objective of that name.

    Raises:
        UserError: When there is none.
    """
    for known in INFERENCE_OBJECTIVES:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in INFERENCE_OBJECTIVES)
    raise UserError(f"unknown inference objective {name!r}; there are {names}")


def figures(
    measured: SettingMeasurement, anchor: Reading, peak_memory_bytes: int | None = None
) -> Mapping[str, Reading]:
    """The figures of a setting by name, with their errors; what was not measured is left out.

    Args:
        measured: What the file takes in the setting against its anchor.
        anchor: Milliseconds of a call of the anchor.
        peak_memory_bytes: Memory that the setting takes.

    Returns:
        ``latency_ms`` of a call, ``throughput_per_s``, ``energy_j`` of a sample, ``peak_memory_bytes``.
    """
    ratio = measured.call.reading
    error = math.hypot(ratio.error, BETWEEN_READINGS, anchor.error)
    latency_ms = ratio.value * anchor.value
    values = {
        "latency_ms": Reading(latency_ms, error),
        "throughput_per_s": Reading(measured.setting.batch * 1e3 / latency_ms, error),
    }
    if measured.energy_j is not None:
        values["energy_j"] = Reading(measured.energy_j)
    if peak_memory_bytes is not None:
        values["peak_memory_bytes"] = Reading(float(peak_memory_bytes))
    return values


def value_of(objective: InferenceObjective, known: Mapping[str, Reading]) -> float:
    """The value of the objective.

    Raises:
        MeasurementFailed: When it was not measured.
    """
    if objective.figure not in known:
        raise MeasurementFailed(f"{objective.figure} could not be measured")
    return known[objective.figure].value
