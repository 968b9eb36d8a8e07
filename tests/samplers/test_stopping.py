from __future__ import annotations

import optuna
import pytest
from support.toy_space import BOUNDS, DIRECTIONS, FREE, objective

from petra_optuna.errors import UserError
from petra_optuna.samplers import Generations, PetraSampler, Stagnation, StopRule, Targets, TimeLimit

LONGEST = 60
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def search(*rules: StopRule, trials: int = LONGEST) -> optuna.Study:
    study = optuna.create_study(directions=DIRECTIONS, sampler=PetraSampler(FREE, seed=0, population_size=6))
    study.set_metric_names(["quality", "size"])
    study.set_user_attr("petra:bounds", BOUNDS)
    study.optimize(objective, n_trials=trials, callbacks=list(rules))
    return study


def hand_made(values: list[tuple[float, float]], **trial: object) -> optuna.Study:
    study = optuna.create_study(directions=DIRECTIONS)
    study.set_metric_names(["quality", "size"])
    study.set_user_attr("petra:bounds", BOUNDS)
    for pair in values:
        study.add_trial(optuna.create_trial(values=pair, **trial))
    return study


def test_generations_are_blocks_of_finished_trials() -> None:
    assert len(search(Generations(3, 6)).trials) == 18


def test_failed_trials_count_and_killed_ones_that_run_again_do_not() -> None:
    study = hand_made([(0.9, 50.0)] * 3)
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.FAIL))
    assert Generations(2, 2).is_reached(study)
    study = hand_made([(0.9, 50.0)] * 3)
    study.add_trial(
        optuna.create_trial(state=optuna.trial.TrialState.FAIL, system_attrs={"petra:orphan": True})
    )
    assert not Generations(2, 2).is_reached(study)


def test_targets_must_be_reached_by_one_trial_together() -> None:
    targets = Targets({"quality": 0.9, "size": 40.0})
    assert not targets.is_reached(hand_made([(0.95, 60.0), (0.5, 20.0)]))
    assert targets.is_reached(hand_made([(0.95, 60.0), (0.9, 40.0)]))
    assert Targets({"size": 20.0}).is_reached(hand_made([(0.95, 60.0), (0.5, 20.0)]))
    assert not targets.is_reached(hand_made([(0.9, 40.0)], constraints={"too_slow": 1.0}))


def test_a_search_stops_at_its_target() -> None:
    study = search(Targets({"size": 25.0}))
    assert 1 < len(study.trials) < LONGEST
    assert min(trial.values[1] for trial in study.trials[:-1]) > 25 >= study.trials[-1].values[1]


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(UserError, match=r"no objective 'speed'; it has quality, size"):
        Targets({"speed": 1.0}).is_reached(hand_made([(0.9, 50.0)]))


def test_stagnation_is_a_hypervolume_that_does_not_grow() -> None:
    flat = [(0.9, 50.0)] * 5
    assert Stagnation(4).is_reached(hand_made(flat))
    assert not Stagnation(5).is_reached(hand_made(flat))
    assert not Stagnation(4).is_reached(hand_made([*flat, (0.9, 25.0)]))
    assert Stagnation(4, share=9.0).is_reached(hand_made([*flat, (0.9, 25.0)]))
    assert Stagnation(4).is_reached(hand_made([*flat, (0.9, 49.99)]))


def test_nothing_to_grow_from_is_no_stagnation() -> None:
    """At chance quality, outside of the bounds, there is no hypervolume yet."""
    assert not Stagnation(2).is_reached(hand_made([(0.1, 50.0)] * 8))


def test_a_search_stops_when_it_stagnates() -> None:
    study = search(Stagnation(12))
    assert 12 < len(study.trials) < LONGEST
    assert not Stagnation(12).is_reached(hand_made([trial.values for trial in study.trials[:-1]]))


def test_time_is_over() -> None:
    assert len(search(TimeLimit(1e-9)).trials) == 1
    assert not TimeLimit(1e6).is_reached(hand_made([]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeLimit(0), "`seconds` must be positive"),
        (lambda: Generations(0, 4), "`generations` must be at least 1, got 0"),
        (lambda: Targets({}), "`values` must name at least one objective"),
        (lambda: Stagnation(0), "at least 1 trial"),
        (lambda: Stagnation(3, -0.1), "`share` must not be negative"),
    ],
)
def test_impossible_rules_are_refused(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()
