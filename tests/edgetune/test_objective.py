"""What a tuning study minimises: the sum of training and inference over the quality."""

from __future__ import annotations

import pytest

from petra_optuna.edgetune import TUNING_OBJECTIVES, TrialFigures, TuningObjective
from petra_optuna.edgetune.objective import tuning_objective
from petra_optuna.errors import MeasurementFailed, UserError
from petra_optuna.tasks import Metric

ACCURACY = Metric("accuracy", "maximize", lambda outputs, targets: 0.0)
ERROR = Metric("error", "minimize", lambda outputs, targets: 0.0)
FIGURES = TrialFigures(quality=0.8, train_s=10.0, inference_s=6.0, train_j=30.0, inference_j=2.0)


@pytest.mark.parametrize(("name", "value"), [("runtime", 20.0), ("energy", 40.0)])
def test_the_sum_of_both_parts_over_the_quality_is_minimised(name: str, value: float) -> None:
    objective = tuning_objective(name, ACCURACY)
    assert (objective.name, objective.direction) == (name, "minimize")
    assert objective.function(FIGURES) == pytest.approx(value)
    assert objective.needs_energy == (name == "energy")


@pytest.mark.parametrize("metric", [ACCURACY, ERROR])
def test_quality_is_the_metric_in_its_own_direction(metric: Metric) -> None:
    objective = tuning_objective("quality", metric)
    assert (objective.name, objective.direction) == (metric.name, metric.direction)
    assert objective.function(FIGURES) == 0.8


def test_without_inference_training_alone_counts() -> None:
    alone = TrialFigures(quality=0.5, train_s=10.0, train_j=30.0)
    values = [tuning_objective(name, ACCURACY).function(alone) for name in ("runtime", "energy")]
    assert values == [20.0, 60.0]


def test_a_quality_of_nothing_is_worst_and_a_better_one_is_better() -> None:
    objective = tuning_objective("runtime", ACCURACY).function
    values = [objective(TrialFigures(quality, 1.0)) for quality in (-1.0, 0.0, 0.1, 0.9)]
    assert values == sorted(values, reverse=True)
    assert values[1] > 1e6


@pytest.mark.parametrize("name", ["runtime", "energy"])
def test_a_metric_of_which_less_is_better_cannot_be_divided_by(name: str) -> None:
    with pytest.raises(UserError, match=f"objective {name!r} divides by the metric, and less of error"):
        tuning_objective(name, ERROR)


def test_energy_that_nobody_counted_is_no_value() -> None:
    with pytest.raises(MeasurementFailed, match="energy of training was not counted"):
        tuning_objective("energy", ACCURACY).function(TrialFigures(0.9, 1.0, 1.0))


def test_an_objective_of_the_users_is_taken_as_it_is() -> None:
    mine = TuningObjective("mine", "maximize", lambda figures: figures.quality / figures.train_s)
    assert tuning_objective(mine, ERROR) is mine


def test_an_unknown_objective_names_the_known() -> None:
    with pytest.raises(UserError, match=f"'speed'; there are {', '.join(TUNING_OBJECTIVES)}"):
        tuning_objective("speed", ACCURACY)
