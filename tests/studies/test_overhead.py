"""Seconds beside training, of trials as a study stores them."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from petra_optuna.evaluation import TrainingLedger
from petra_optuna.study.trial_record import LEDGER
from studies.overhead import HEADER, cells, seconds_beside_training


def _trial(seconds: float, ledger: TrainingLedger, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    values = [1.0] if state == TrialState.COMPLETE else None
    trial = create_trial(state=state, values=values, user_attrs={LEDGER: dataclasses.asdict(ledger)})
    began = datetime.datetime(2026, 1, 1)
    trial.datetime_start, trial.datetime_complete = began, began + datetime.timedelta(seconds=seconds)
    return trial


LEDGER_OF_TEN = TrainingLedger(
    train_s=100.0, judging_s=5.0, export_s=4.0, quality_s=2.0, measuring_s=1.0, exports=1, exports_spared=2
)


def test_what_no_phase_counts_is_the_rest() -> None:
    seconds = seconds_beside_training(_trial(115.0, LEDGER_OF_TEN))
    assert seconds["beside"] == pytest.approx(10.0)
    assert seconds["rest"] == pytest.approx(3.0)
    assert sum(seconds.values()) == pytest.approx(20.0)


def test_a_row_has_medians_of_the_trials_with_a_file_and_sums_of_their_exports() -> None:
    trials = [_trial(total, LEDGER_OF_TEN) for total in (115.0, 116.0, 135.0)]
    trials.append(_trial(1.0, TrainingLedger(exports=9), TrialState.FAIL))
    row = dict(zip(HEADER[1:], cells(trials), strict=True))
    assert row["trials with a file"] == 3
    assert row["beside training, s (median)"] == "11.0"
    assert row["export, s (median)"] == "4.0"
    assert (row["exports"], row["exports spared"]) == (3, 6)


def test_a_study_without_a_file_has_a_row() -> None:
    assert len(cells([_trial(1.0, TrainingLedger(), TrialState.FAIL)])) == len(HEADER) - 1
