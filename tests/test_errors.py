"""The errors of the library and what becomes of others'."""

from __future__ import annotations

import pytest

from petra_optuna.errors import FOREIGN_ERRORS, MeasurementFailed, PetraError, TaskError, foreign_errors_as


@pytest.mark.parametrize("kind", FOREIGN_ERRORS)
def test_a_foreign_error_becomes_one_line_of_ours(kind: type[Exception]) -> None:
    error = kind("first line\nsecond line")
    with pytest.raises(TaskError) as caught, foreign_errors_as(TaskError, "the loss fails"):
        raise error
    assert str(caught.value) == f"the loss fails: {kind.__name__}: first line"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [MeasurementFailed, PetraError, OSError, KeyboardInterrupt])
def test_our_own_errors_and_those_of_the_machine_pass(kind: type[BaseException]) -> None:
    with pytest.raises(kind, match=r"^as it was$"), foreign_errors_as(TaskError, "the loss fails"):
        raise kind("as it was")
