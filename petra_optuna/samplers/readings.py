"""Values of trials that were measured with an error, as they are known now.

Trials of one shape share measured values: what each of them measured is a reading of the same quantity. A
trial keeps the values with which it ended; here they are read anew from all readings of its shape. Trials
without readings, of any other objective, have exactly the values with which they ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from petra_optuna.aliases import Direction
from petra_optuna.evolution import MeasuredPoint, minimised
from petra_optuna.noise import Reading, pooled
from petra_optuna.samplers.records import directions_of

SHAPE = "petra:shape"
"""User attribute of a trial: its shape and the readings of it (``ShapeReadings``)."""
RETAKEN = "petra:reading:"
"""User attribute of a study: a reading taken after its trials had ended; its name follows."""


@dataclasses.dataclass(frozen=True)
class ShapeReadings:
    """Readings of the measured values of one shape.

    Attributes:
        shape: Signature of the shape.
        readings: Unique name of a reading -> name of an objective -> what was measured.
        counted: Names of objectives in which files of one shape differ by their encoding only: some bytes.
    """

    shape: str
    readings: Mapping[str, Mapping[str, Reading]]
    counted: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return {
            "shape": self.shape,
            "readings": {
                key: {name: [one.value, one.error] for name, one in values.items()}
                for key, values in self.readings.items()
            },
            "counted": list(self.counted),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ShapeReadings:
        """Inverse of ``to_dict``."""
        return cls(
            data["shape"],
            {
                key: {name: Reading(*one) for name, one in values.items()}
                for key, values in data["readings"].items()
            },
            tuple(data.get("counted", ())),
        )

    @classmethod
    def of_trial(cls, trial: FrozenTrial) -> ShapeReadings | None:
        """What a trial stores; None where its values are exact."""
        stored = trial.user_attrs.get(SHAPE)
        return None if stored is None else cls.from_dict(stored)


def retaken_readings(attributes: Mapping[str, Any]) -> tuple[ShapeReadings, ...]:
    """Readings among a study's user attributes, in the order of their names."""
    names = sorted(name for name in attributes if name.startswith(RETAKEN))
    return tuple(ShapeReadings.from_dict(attributes[name]) for name in names)


class MeasuredValues:
    """Values of trials by all readings of their shapes; built up reading by reading.

    Args:
        names: Names of the objectives in their order; readings of other names do not count here.
        directions: Directions of the objectives.
    """

    def __init__(self, names: Sequence[str], directions: Sequence[Direction]) -> None:
        self._positions = {name: index for index, name in enumerate(names)}
        self._directions = tuple(directions)
        self._readings: dict[str, dict[str, Mapping[str, Reading]]] = {}
        self._pooled: dict[str, dict[int, Reading]] = {}
        self._shapes: dict[int, str] = {}
        self._ranges: dict[str, dict[int, tuple[float, float]]] = {}

    @classmethod
    def for_study(cls, study: optuna.Study) -> MeasuredValues:
        """The objectives of a study, and nothing that was read yet."""
        return cls(study.metric_names or (), directions_of(study))

    @classmethod
    def of_study(cls, study: optuna.Study) -> MeasuredValues:
        """Values of all finished trials of a study."""
        measured = cls.for_study(study)
        measured.add(retaken_readings(study.user_attrs))
        measured.add_trials(trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())
        return measured

    def add_trials(self, trials: Iterable[FrozenTrial]) -> bool:
        """Take in what finished trials have read.

        Returns:
            Whether values of a shape that was known before may have changed.
        """
        changed = False
        for trial in trials:
            read = ShapeReadings.of_trial(trial)
            if read is not None:
                self._shapes[trial.number] = read.shape
                changed = self.add([read]) or changed
                changed = self._widen(read, trial) or changed
        return changed

    def add(self, several: Iterable[ShapeReadings]) -> bool:
        """Take in readings.

        Returns:
            Whether values of a shape that was known before may have changed.
        """
        changed = False
        for read in several:
            readings = self._readings.setdefault(read.shape, {})
            new = {key: values for key, values in read.readings.items() if key not in readings}
            changed = changed or bool(readings and new)
            if new:
                readings.update(new)
                self._pooled.pop(read.shape, None)
        return changed

    def values(self, trial: FrozenTrial) -> tuple[float, ...]:
        """Values of a complete trial in the order of the objectives."""
        readings = self.known(trial)
        return tuple(
            readings[index].value if index in readings else float(value)
            for index, value in enumerate(trial.values)
        )

    def reaches(self, trial: FrozenTrial, value: float) -> bool:
        """Whether a complete trial is at least as good as a value in the first objective."""
        sign = 1 if self._directions[0] == "maximize" else -1
        return sign * self.values(trial)[0] >= sign * value

    def known(self, trial: FrozenTrial) -> Mapping[int, Reading]:
        """What is measured of a trial with an error, by position of the objective."""
        shape = self._shapes.get(trial.number)
        if shape is None:
            return {}
        if shape not in self._pooled:
            self._pooled[shape] = self._pool(self._readings[shape])
        return self._pooled[shape]

    def point(self, trial: FrozenTrial) -> MeasuredPoint:
        """Minimised values of a complete trial with their intervals."""
        readings = self.known(trial)
        values = self.values(trial)
        ranges = self._ranges.get(self._shapes.get(trial.number, ""), {})
        if not readings and not ranges:
            return MeasuredPoint.exact(minimised([values], self._directions)[0])
        ends = [
            (readings[index].low, readings[index].high)
            if index in readings
            else ranges.get(index, (value, value))
            for index, value in enumerate(values)
        ]
        table = minimised([values, *zip(*ends, strict=True)], self._directions)
        return MeasuredPoint(table[0], np.minimum(table[1], table[2]), np.maximum(table[1], table[2]))

    def _widen(self, read: ShapeReadings, trial: FrozenTrial) -> bool:
        """Take in the counted values of a trial; whether the range of others of its shape has changed."""
        if trial.values is None:
            return False
        ranges = self._ranges.setdefault(read.shape, {})
        changed = False
        for name in read.counted:
            if name in self._positions:
                index = self._positions[name]
                value = float(trial.values[index])
                low, high = ranges.get(index, (value, value))
                changed = changed or not low <= value <= high
                ranges[index] = (min(low, value), max(high, value))
        return changed

    def _pool(self, readings: Mapping[str, Mapping[str, Reading]]) -> dict[int, Reading]:
        by_position: dict[int, list[Reading]] = {}
        # By name: a sum depends on the order of its terms, and nothing may depend on that of arrival.
        for _, values in sorted(readings.items()):
            for name, one in values.items():
                if name in self._positions:
                    by_position.setdefault(self._positions[name], []).append(one)
        return {position: pooled(several) for position, several in by_position.items()}
