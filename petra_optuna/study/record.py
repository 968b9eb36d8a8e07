"""Names of what a study keeps in Optuna's user attributes, in one place."""

from __future__ import annotations

from typing import Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.evolution import is_feasible

SPECIFICATION: Final = "petra:specification"
"""Study: everything needed to continue it (see ``study.specification``)."""
BASELINE: Final = "petra:yardstick"
"""Study: the frozen measurement of the original, and where its file is."""
EVALUATION: Final = "petra:evaluation"
"""Trial: all that is known of it besides its values, one JSON object."""
FAILURE: Final = "petra:failure"
"""Trial: why it failed or was stopped, one line."""
RUNG: Final = "petra:judged:"
"""Trial: its result at a rung; the rung's number follows."""
SAVINGS: Final = "petra:savings"
"""Trial, stopped and failed ones included: what it trained and was spared (``evaluation.TrainingLedger``)."""
WORKER: Final = "petra:worker"
"""Trial: host and process that runs it, to recognise orphans."""
COMPLETE: Final = "petra:complete"
"""Study: that its making was not cut off."""
WARM_START: Final = "petra:warm_start"
"""Study: what it took over from the study that it was started from."""
STOP: Final = "petra:stop"
"""Study: when its last run was to end."""
CONFIRMATION: Final = "petra:confirmation"
"""Study: its front on the test split, the last time that it was confirmed."""
TEST_READINGS: Final = "petra:test_readings"
"""Study: how often its test split was read, a reading that was cut off included."""


def feasible_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials within the hard limits, by number."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in complete if is_feasible(trial.constraints)]
