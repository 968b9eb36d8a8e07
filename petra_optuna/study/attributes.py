"""Names of what a study keeps in Optuna's user attributes, in one place."""

from __future__ import annotations

from typing import Final

SPECIFICATION: Final = "petra:specification"
"""Study: everything needed to continue it (see ``study.specification``)."""
YARDSTICK: Final = "petra:yardstick"
"""Study: the frozen measurement of the original, and where its file is."""
EVALUATION: Final = "petra:evaluation"
"""Trial: all that is known of it besides its values, one JSON object."""
FAILURE: Final = "petra:failure"
"""Trial: why it failed or was stopped, one line."""
RUNG: Final = "petra:rung:"
"""Trial: its result at a rung; the rung's number follows."""
SAVINGS: Final = "petra:savings"
"""Trial, stopped and failed ones included: what it trained and was spared (``evaluation.Savings``)."""
WORKER: Final = "petra:worker"
"""Trial: host and process that runs it, to recognise orphans."""
COMPLETE: Final = "petra:complete"
"""Study: that its making was not cut off."""
STOP: Final = "petra:stop"
"""Study: when its last run was to end."""
CONFIRMATION: Final = "petra:confirmation"
"""Study: its front on the test split, the last time that it was confirmed."""
TEST_READINGS: Final = "petra:test_readings"
"""Study: how often its test split was read, a reading that was cut off included."""
