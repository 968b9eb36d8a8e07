"""What trials cost beside training: seconds by phase, and what exports and measurements were spared."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.study import TrialRecord, recorded_trials

PHASES = ("export", "conversion", "certificate", "quality", "measuring")
COUNTS = ("exports", "exports_spared", "readings", "readings_spared")
HEADER = (
    *("parts", "trials with a file", "beside training, s (median)"),
    *(f"{phase}, s (median)" for phase in (*PHASES, "rest")),
    *("exports", "exports spared", "measurements", "files not measured"),
)


def seconds_beside_training(trial: FrozenTrial) -> dict[str, float]:
    """Seconds of a finished trial beside training and judging: ``beside``, and by phase, ``rest`` included.

    Structural nodes, the preview, checkpoints and what Optuna stores are the rest.
    """
    assert trial.duration is not None
    ledger = TrialRecord(trial).ledger
    beside = trial.duration.total_seconds() - ledger.train_s - ledger.judging_s
    phases: dict[str, float] = {phase: getattr(ledger, f"{phase}_s") for phase in PHASES}
    return {"beside": beside, **phases, "rest": beside - sum(phases.values())}


def rows(studies: Mapping[str, optuna.Study]) -> Iterator[list[object]]:
    """One row a study under ``HEADER``; each median is its phase's own, so they do not add up."""
    for name, study in studies.items():
        yield [name, *cells(recorded_trials(study))]


def cells(trials: Iterable[FrozenTrial]) -> list[object]:
    """The cells of one row after its name."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        return [0, *["-"] * (len(PHASES) + 2), *[0] * len(COUNTS)]
    seconds = [seconds_beside_training(trial) for trial in complete]
    ledgers = [TrialRecord(trial).ledger for trial in complete]
    medians = [statistics.median(part[name] for part in seconds) for name in seconds[0]]
    counts = [sum(getattr(one, name) for one in ledgers) for name in COUNTS]
    return [len(complete), *(f"{median:.1f}" for median in medians), *counts]
