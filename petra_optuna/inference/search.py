"""One search among the settings of a file: a nested study, concluded while nothing else runs.

The study measures ratios to the file's own anchor, so it may run beside a training. At its end the best
settings are measured again, and the anchor's own time: of many noisy values the best one is too good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.errors import MeasurementFailed, TrialError, UserError
from petra_optuna.inference.device import EdgeDevice
from petra_optuna.inference.objective import ENERGY, MEMORY, InferenceObjective, figures, value_of
from petra_optuna.inference.recommendation import Recommendation
from petra_optuna.inference.space import InferenceSpace
from petra_optuna.measurement import InferenceSetting, SettingMeasurement, SettingProcess
from petra_optuna.noise import BETWEEN_READINGS, Reading

MEASURED: Final = "petra:setting"
"""Key of what a trial of a nested study measured (``SettingMeasurement``)."""
FAILURE: Final = "petra:failure"
"""Key of why a setting could not be measured, one line."""
ANCHOR_MS: Final = "petra:anchor_ms"
"""Key of the anchor's time by which all values of a nested study are computed, also after it was killed."""
FINALISTS = 3
"""Settings that are measured again at the end."""
_TRIALS_A_MEASUREMENT = 4
"""A trial whose setting is known repeats its value, so there may be more trials than measurements."""


@dataclasses.dataclass
class InferenceSearch:
    """One search: its study, and what measures its settings.

    Attributes:
        device: Device that the file is served on.
        space: Settings that there are.
        objective: What they are tuned for.
        budget: Settings that are measured, those that are measured again at the end included.
        process: Measures settings.
        study: The nested study.
        anchor: Milliseconds of the anchor as the study first measured it; 1 until then.
    """

    device: EdgeDevice
    space: InferenceSpace
    objective: InferenceObjective
    budget: int
    process: SettingProcess
    study: optuna.Study
    anchor: Reading = Reading(1.0)

    def run(self, file: Path, timeout_s: float) -> None:
        """Measure settings until the budget is spent, those excepted that are measured again at the end.

        Args:
            file: The file that the process has open, for messages.
            timeout_s: Seconds after which no further setting is measured.

        Raises:
            UserError: When the model does not fit the device, or nothing counts the energy.
        """
        opened = self._open(file)
        self.anchor = Reading(self.study.user_attrs.get(ANCHOR_MS, opened.value))
        self.study.set_user_attr(ANCHOR_MS, self.anchor.value)
        for setting in self.space.first_settings():
            self.study.enqueue_trial(setting.to_dict(), skip_if_exists=True)
        left = self.budget - FINALISTS
        self.study.optimize(
            self._objective,
            n_trials=max(1, left * _TRIALS_A_MEASUREMENT),
            timeout=timeout_s,
            catch=(TrialError,),
            callbacks=[self._stop_when_spent],
        )

    def conclude(self, shape: str) -> Recommendation:
        """Measure the best settings and the anchor again, and recommend the best of them.

        Raises:
            MeasurementFailed: When no setting could be measured.
        """
        best = self._finalists()
        if not best:
            failed = [trial.user_attrs.get(FAILURE) for trial in self.study.get_trials(deepcopy=False)]
            reason = next((text for text in failed if text), "every setting failed")
            raise MeasurementFailed(f"no setting could be measured: {reason}")
        # Other guests of a machine make it slower for minutes, and nothing makes it faster: the least counts.
        anchor = Reading(min(self.process.anchor_ms(), self.anchor.value), BETWEEN_READINGS)
        measured = self._again(best, anchor)
        objective = self.objective
        sign = 1 if objective.direction == "minimize" else -1
        chosen, expected = min(measured, key=lambda one: sign * value_of(objective, one[1]))
        if "peak_memory_bytes" not in expected:
            peak = self.process.peak_memory(chosen.setting)
            expected = {**expected, **({} if peak is None else {"peak_memory_bytes": Reading(float(peak))})}
        return Recommendation(
            shape=shape,
            device=self.device,
            objective=objective,
            setting=chosen.setting,
            expected=expected,
            simple=self._simple(anchor, {one.setting: values for one, values in measured}),
            energy_source=chosen.energy_source,
            measurements=len(self._measured()) + len(best),
            settings=self.space.size,
            study=self.study.study_name,
        )

    def _again(
        self, settings: Sequence[InferenceSetting], anchor: Reading
    ) -> list[tuple[SettingMeasurement, Mapping[str, Reading]]]:
        """The settings that can be measured once more, with their figures.

        Raises:
            MeasurementFailed: When none can.
        """
        measured, reason = [], ""
        for setting in settings:
            try:
                one = self.process.measure(setting)
                measured.append((one, self._figures(one, anchor)))
            except MeasurementFailed as error:  # the others may do
                reason = str(error)
        if not measured:
            raise MeasurementFailed(f"no setting could be measured again: {reason}")
        return measured

    def _open(self, file: Path) -> Reading:
        """The anchor's time, which a device that cannot hold the model does not have."""
        try:
            return Reading(self.process.anchor_ms())
        except MeasurementFailed as error:
            if self.objective.name == ENERGY and "energy" in str(error):
                raise UserError(
                    f"{error}; name an estimator, for example cpu-time:6, or another objective"
                ) from error
            limit = self.device.memory_bytes
            if limit is None or not self.process.runs_without_limit():
                raise
            raise UserError(
                f"device {self.device.name!r} allows {limit} bytes of memory, which does not hold "
                f"{file.name} of {file.stat().st_size} bytes: {error}"
            ) from error

    def _objective(self, trial: optuna.Trial) -> float:
        space = self.space
        parameters = {
            "batch": trial.suggest_int("batch", 1, space.max_batch),
            "cores": trial.suggest_int("cores", 1, space.cores),
            "threads": trial.suggest_int("threads", 1, space.cores),
            "runtime": trial.suggest_categorical("runtime", space.runtimes),
        }
        setting = space.setting(parameters)
        stored = self._measured().get(setting)
        if stored is not None:
            return stored[1]
        try:
            self._refuse_failed(setting)
            measured = self.process.measure(setting)
            value = value_of(self.objective, self._figures(measured, self.anchor))
        except TrialError as error:
            trial.set_user_attr(FAILURE, str(error))
            raise
        trial.set_user_attr(MEASURED, measured.to_dict())
        return value

    def _refuse_failed(self, setting: InferenceSetting) -> None:
        """Fail as the setting failed before: another crash of a child says nothing new."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
            if FAILURE in trial.user_attrs and self.space.setting(trial.params) == setting:
                raise MeasurementFailed(trial.user_attrs[FAILURE])

    def _figures(self, measured: SettingMeasurement, anchor: Reading) -> Mapping[str, Reading]:
        of_memory = self.objective.name == MEMORY
        return figures(measured, anchor, self.process.peak_memory(measured.setting) if of_memory else None)

    def _measured(self) -> dict[InferenceSetting, tuple[SettingMeasurement, float]]:
        """What the study holds of the settings that were measured, and their values."""
        stored = [
            (SettingMeasurement.from_dict(trial.user_attrs[MEASURED]), trial.value)
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if MEASURED in trial.user_attrs and trial.value is not None
        ]
        return {one.setting: (one, value) for one, value in stored}

    def _finalists(self) -> list[InferenceSetting]:
        measured = self._measured()
        reverse = self.objective.direction == "maximize"
        return sorted(measured, key=lambda setting: measured[setting][1], reverse=reverse)[:FINALISTS]

    def _simple(self, anchor: Reading, again: Mapping[InferenceSetting, Mapping[str, Reading]]) -> Reading:
        """The objective's figure for one sample by all threads, which is the first setting of a search.

        Times are ratios to the anchor, so that of the search serves. Energy that was counted beside a
        training may hold that of the training, so it is counted again.
        """
        first = self.space.first_settings()[0]
        if first in again:
            return again[first][self.objective.figure]
        stored = None if self.objective.name == ENERGY else self._measured().get(first)
        measured = self.process.measure(first) if stored is None else stored[0]
        return self._figures(measured, anchor)[self.objective.figure]

    def _stop_when_spent(self, study: optuna.Study, trial: FrozenTrial) -> None:
        measured = len(self._measured())
        if measured >= self.budget - FINALISTS or measured >= self.space.size:
            study.stop()
