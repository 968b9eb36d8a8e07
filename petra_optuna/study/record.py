"""The record of a study: the only place that writes an Optuna study's user attributes.

The sampler reads three of them (bounds, credit, priors) by keys defined in ``samplers/priors.py``. The keys
never changed with the names in code; names inside the records did. Older forms are read as the present one
here, so that nothing else knows of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import optuna
from optuna.artifacts import FileSystemArtifactStore, download_artifact, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.database import artifacts_folder, sqlite_folder
from petra_optuna.errors import StudyError
from petra_optuna.evaluation import TrainingLedger
from petra_optuna.evolution import Bounds, is_feasible
from petra_optuna.measurement import Baseline
from petra_optuna.pipeline import FieldPrior
from petra_optuna.samplers import (
    BOUNDS,
    CREDIT,
    PRIORS,
    RETAKEN,
    MeasuredValues,
    OperatorUse,
    ShapeReadings,
    database_url,
    superseded,
)
from petra_optuna.study.counting import count_up
from petra_optuna.study.specification import NO_REGION, Specification, WarmStart
from petra_optuna.study.standing import Standing
from petra_optuna.study.trial_record import RungDecision, TrialRecord, has_file, why_no_file

SPECIFICATION: Final = "petra:specification"
"""Everything needed to continue the study (``Specification``)."""
BASELINE: Final = "petra:yardstick"
"""The frozen measurement of the original, and which artifact its file is."""
COMPLETE: Final = "petra:complete"
"""That the study is whole."""
WARM_START: Final = "petra:warm_start"
"""What the study took over from the study that it was started from (``WarmStart``)."""
STOP: Final = "petra:stop"
"""When the last run was to end (fields of ``Stop``)."""
CONFIRMATION: Final = "petra:confirmation"
"""The front on the test split, as it was confirmed last (``Confirmation``)."""
TEST_READINGS: Final = "petra:test_readings"
"""How often the test split was read, a reading that was cut off included."""


class StudyRecord:
    """Reads and writes what an Optuna study holds of ours; older forms are read as the present one.

    Nothing is kept: every access reads the storage.

    Args:
        study: Study to read and write.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    @property
    def specification(self) -> Specification:
        """What the study was made with.

        Raises:
            StudyError: When it was not made by petra-optuna, or its making was interrupted.
        """
        data = self._read(SPECIFICATION)
        if data is None:
            raise StudyError(
                f"study {self._study.study_name!r} has no petra specification: something else made it, or "
                "it is empty; `optimize` fills an empty one, otherwise give another `name`"
            )
        return Specification.from_dict(data).beside(self._folder)

    @property
    def is_cut_off(self) -> bool:
        """Whether the study's making ended before it was whole; earlier releases made it step by step."""
        return _is_cut_off(self._study.user_attrs)

    @property
    def may_be_replaced(self) -> bool:
        """Whether the study's name is free for a new one (``may_be_replaced``)."""
        return may_be_replaced(self._study.user_attrs, len(self._study.get_trials(deepcopy=False)))

    @property
    def baseline_record(self) -> dict[str, Any]:
        """What ``measure_baseline`` returned, and the ``artifact_id`` of the baseline's file."""
        return _present_baseline(self._read(BASELINE), self.specification.profile.throughput_batches[0])

    @property
    def baseline(self) -> Baseline:
        """What the measured ratios are multiplied with."""
        return Baseline.from_dict(self.baseline_record["baseline"])

    @property
    def baseline_values(self) -> dict[str, float]:
        """Values of the baseline by name, all that were measured."""
        values: dict[str, float] = self._read(BASELINE)["values"]
        return values

    @property
    def bounds(self) -> Bounds:
        """Scale of the objectives, frozen before the first trial."""
        return Bounds.from_dict(self._read(BOUNDS))

    @property
    def stop(self) -> dict[str, Any]:
        """Fields of the last run's ``Stop``; empty where none was stored."""
        return cast("dict[str, Any]", self._read(STOP) or {})

    @property
    def warm_start(self) -> WarmStart | None:
        """What the study took over from another one; None where it was started from none."""
        stored = self._read(WARM_START)
        return None if stored is None else WarmStart.from_dict(stored)

    @property
    def confirmation(self) -> dict[str, Any] | None:
        """Fields of the last ``Confirmation``; None where the front was never confirmed."""
        stored = self._read(CONFIRMATION)
        return None if stored is None else _present_confirmation(stored)

    @property
    def test_readings(self) -> int:
        """How often the test split was read for this study."""
        return int(self._read(TEST_READINGS) or 0)

    @property
    def artifact_folder(self) -> Path:
        """Folder of the study's artifacts.

        Raises:
            StudyError: When the study is not in a database.
        """
        stored = self.specification.artifacts
        if stored is not None:
            return Path(stored)
        url = database_url(self._study)
        if url is None:
            raise StudyError(f"study {self._study.study_name!r} is not in a database, so it has no artifacts")
        return artifacts_folder(url)

    @property
    def artifact_store(self) -> FileSystemArtifactStore:
        """Where the study's files go."""
        return FileSystemArtifactStore(str(self.artifact_folder))

    def fetch(self, artifact_id: str, path: Path) -> None:
        """Copy an artifact of the study to ``path``.

        Raises:
            StudyError: When the artifact store does not hold it.
        """
        fetch_artifact(self.artifact_folder, artifact_id, path)

    def fetch_baseline(self, path: Path) -> None:
        """Copy the baseline's file to ``path``.

        Raises:
            StudyError: When the artifact store does not hold it.
        """
        self.fetch(self._read(BASELINE)["artifact_id"], path)

    def evaluation(self, number: int) -> dict[str, Any]:
        """What is stored of a finished trial: ``Evaluation.to_dict``, with the numbers of the artifacts.

        Raises:
            StudyError: When the trial does not exist, or has no file; the text says why.
        """
        trials = self._study.get_trials(deepcopy=False)
        trial = next((trial for trial in trials if trial.number == number), None)
        if trial is None:
            last = f"0 to {len(trials) - 1}" if trials else "none"
            raise StudyError(f"study {self._study.study_name!r} has no trial {number}; its trials are {last}")
        record = TrialRecord(trial).evaluation
        if trial.state != TrialState.COMPLETE or record is None:
            raise StudyError(f"trial {number} is {trial.state.name} and has no file: {why_no_file(trial)}")
        return record

    @property
    def measured_values(self) -> MeasuredValues:
        """Values of all trials, read anew from all measurements of their shapes."""
        return MeasuredValues.of_study(self._study)

    @property
    def standing(self) -> Standing:
        """Which feasible trials are on the front, tie with it, or lie below the region of interest."""
        return Standing.of(self.feasible_trials(), self.measured_values, self.region_limit)

    @property
    def region_limit(self) -> float | None:
        """The worst quality in the region of interest; None where the study has no such region."""
        specification = self.specification
        if specification.region >= NO_REGION:
            return None
        quality = self.bounds.reference[0]
        drop = specification.region * abs(quality)
        return quality - drop if specification.direction == "maximize" else quality + drop

    def feasible_trials(self) -> list[FrozenTrial]:
        """Complete trials within the hard limits, by number, without those that were added from outside."""
        with_file = [trial for trial in self._complete_trials() if has_file(trial)]
        return [trial for trial in with_file if is_feasible(trial.constraints)]

    def added_trials(self) -> list[int]:
        """Numbers of the complete trials that were added from outside: they have values and no file."""
        return [trial.number for trial in self._complete_trials() if not has_file(trial)]

    def front_trials(self) -> list[FrozenTrial]:
        """Feasible trials in the region of interest that no other one dominates or ties with, by number."""
        return sorted(self.standing.front, key=lambda trial: trial.number)

    def ledger(self) -> TrainingLedger:
        """The training ledgers of all trials, summed; zeros where none was stored."""
        stored = [TrialRecord(trial).ledger_fields for trial in self._study.get_trials(deepcopy=False)]
        names = [field.name for field in dataclasses.fields(TrainingLedger)]
        return TrainingLedger(**{name: sum(fields.get(name, 0) for fields in stored) for name in names})

    def rung_results(self, rung: int, *, without: int) -> list[RungDecision]:
        """What the other trials stored at a rung, without those that were run again.

        Args:
            rung: Number of the rung.
            without: Number of the trial to leave out.
        """
        trials = self._study.get_trials(deepcopy=False)
        left_out = {without, *superseded(trials)}
        decisions = [TrialRecord(trial).rung(rung) for trial in trials if trial.number not in left_out]
        return [decision for decision in decisions if decision is not None]

    def store_specification(self, specification: Specification) -> None:
        """Store what the study is made with."""
        self._study.set_user_attr(SPECIFICATION, specification.movable_with(self._folder).to_dict())

    def store_baseline(self, record: Mapping[str, Any], file: Path, store: FileSystemArtifactStore) -> None:
        """Freeze the baseline: its file goes to the artifacts, its measurement into the study.

        Args:
            record: What ``measure_baseline`` returned.
            file: The baseline's file.
            store: Where the study's files go.
        """
        artifact_id = upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=self._study)
        self._study.set_user_attr(BASELINE, {**record, "artifact_id": artifact_id})

    def store_bounds(self, bounds: Bounds) -> None:
        """Freeze the scale of the objectives."""
        self._study.set_user_attr(BOUNDS, bounds.to_dict())

    def store_warm_start(self, warm_start: WarmStart, credit: Sequence[OperatorUse]) -> None:
        """Store what the study takes over from another one."""
        self._study.set_user_attr(WARM_START, warm_start.to_dict())
        self._study.set_user_attr(CREDIT, [dataclasses.asdict(use) for use in credit])

    def store_priors(self, priors: Sequence[FieldPrior]) -> None:
        """Store where the fields of new nodes are mostly drawn."""
        self._study.set_user_attr(PRIORS, [prior.to_dict() for prior in priors])

    def mark_complete(self) -> None:
        """Store that the study is whole."""
        self._study.set_user_attr(COMPLETE, True)

    def store_reading(self, name: str, readings: ShapeReadings) -> None:
        """Store a measurement of a shape that was taken after its trials had ended.

        Args:
            name: Unique name of the measurement.
            readings: The shape, and what was measured.
        """
        self._study.set_user_attr(f"{RETAKEN}{name}", readings.to_dict())

    def store_stop(self, stop: Mapping[str, Any]) -> None:
        """Store when the run that begins is to end."""
        self._study.set_user_attr(STOP, stop)

    def count_test_reading(self, before: int) -> bool:
        """Count one more reading of the test split; False when another process has done so before.

        Args:
            before: ``test_readings`` as this process read it.
        """
        return count_up(self._study, TEST_READINGS, before)

    def store_confirmation(self, confirmation: Mapping[str, Any]) -> None:
        """Store what a confirmation found, over that of the last one."""
        self._study.set_user_attr(CONFIRMATION, confirmation)

    @property
    def _folder(self) -> Path | None:
        """Folder of the study's SQLite file; None where it is in none."""
        url = database_url(self._study)
        return None if url is None else sqlite_folder(url)

    def _complete_trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _read(self, key: str) -> Any:
        return self._study.user_attrs.get(key)


def may_be_replaced(attributes: Mapping[str, Any], trials: int) -> bool:
    """Whether a study makes way for a new one of its name: it holds nothing, or its making was cut off.

    Args:
        attributes: User attributes of the study.
        trials: Number of its trials.
    """
    return _is_cut_off(attributes) or (not attributes and trials == 0)


def fetch_artifact(folder: Path, artifact_id: str, path: Path) -> None:
    """Copy an artifact of a folder to ``path``.

    Raises:
        StudyError: When the folder does not hold it.
    """
    store = FileSystemArtifactStore(str(folder))
    try:
        download_artifact(artifact_store=store, file_path=str(path), artifact_id=artifact_id)
    except (ArtifactNotFound, FileNotFoundError) as error:
        raise StudyError(
            f"artifact {artifact_id} is not in {folder}; was the folder moved or emptied?"
        ) from error


def artifact_store(specification: Specification, url: str) -> FileSystemArtifactStore:
    """Where the files of a study go that is made in the database of that URL; the folder is made."""
    folder = Path(specification.artifacts or artifacts_folder(url))
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(str(folder))


def _is_cut_off(attributes: Mapping[str, Any]) -> bool:
    return SPECIFICATION in attributes and COMPLETE not in attributes


def _present_baseline(stored: Mapping[str, Any], throughput_batch: int) -> dict[str, Any]:
    """The record of a study's baseline in the present form.

    Args:
        stored: Record as it is stored. Its ``baseline`` was named ``yardstick`` once; before that it held
            ``values`` alone, which were measured at one throughput batch.
        throughput_batch: First throughput batch of the study's device profile.
    """
    record = {"convolutions": None, **stored}
    if "yardstick" in record:
        record["baseline"] = record.pop("yardstick")
    if "baseline" not in record:
        values = record["values"]
        rates = {throughput_batch: values["throughput_per_s"]}
        record["baseline"] = Baseline(values["latency_ms"], rates).to_dict()
    return record


def _present_confirmation(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a confirmation in the present form; its ``baseline`` was named ``original`` once."""
    return {("baseline" if name == "original" else name): value for name, value in stored.items()}
