"""Bounds on figures of a trial: read, checked, and kept by the search and its result."""

from __future__ import annotations

import pytest

from petra_optuna.edgetune import TrialFigures
from petra_optuna.edgetune.limits import FigureLimit
from petra_optuna.errors import MeasurementFailed, UserError

FIGURES = TrialFigures(quality=0.8, train_s=10.0, inference_s=6.0)


@pytest.mark.parametrize(
    ("text", "excess"),
    [("quality>=0.9", 0.1), ("quality >= 0.8", 0.0), ("train_s<=12", -2.0), ("inference_s<=5.5", 0.5)],
)
def test_the_excess_is_at_most_0_where_a_limit_is_kept(text: str, excess: float) -> None:
    limit = FigureLimit.parse(text)
    assert limit.excess(FIGURES) == pytest.approx(excess)
    assert FigureLimit.parse(str(limit)) == limit


@pytest.mark.parametrize(
    "text", ["quality", "quality=0.9", "quality>=much", "quality>=nan", ">=1", "quality<1"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a limit is NAME<=VALUE or NAME>=VALUE"):
        FigureLimit.parse(text)


def test_an_unknown_figure_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match="there are quality, train_s, inference_s, train_j, inference_j"):
        FigureLimit.parse("latency<=1")


def test_a_figure_that_was_not_measured_has_no_excess() -> None:
    with pytest.raises(MeasurementFailed, match="limit train_j<=5 bounds train_j, which was not measured"):
        FigureLimit.parse("train_j<=5").excess(FIGURES)
