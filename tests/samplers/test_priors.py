"""Plans of a study that has priors of the fields of new nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
from support.toy_space import BOUNDS, DIRECTIONS, FREE, Cut, objective

from petra_optuna.pipeline import FieldPrior, decode
from petra_optuna.samplers import PRIORS, PetraSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)
PRIOR = FieldPrior("cut", "ratio", 0.2)
TRIALS = 20


def _study(informed: bool, storage: str | None = None) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name="toy", directions=DIRECTIONS)
    study.set_user_attr("petra:bounds", BOUNDS)
    if informed:
        study.set_user_attr(PRIORS, [PRIOR.to_dict()])
    return study


def _plans(study: optuna.Study, trials: int = TRIALS, **options: Any) -> list[dict[str, Any]]:
    study.sampler = PetraSampler(FREE, seed=2, candidates=1, **options)
    study.optimize(objective, n_trials=trials)
    return [trial.params for trial in study.trials]


def test_without_priors_nothing_changes() -> None:
    """Neither the attribute alone nor the option alone moves a draw, and genes from TPE know better."""
    plain = _plans(_study(False))
    assert _plans(_study(True), use_priors=False) == plain
    assert _plans(_study(True), genes="tpe") == _plans(_study(False), genes="tpe")
    assert _plans(_study(True)) != plain


def test_the_papers_search_leaves_them_out() -> None:
    stories = []
    for informed in (True, False):
        study = _study(informed)
        study.sampler = PetraSampler.paper(FREE, seed=2)
        study.optimize(objective, n_trials=TRIALS)
        stories.append([trial.params for trial in study.trials])
    assert stories[0] == stories[1]


def test_random_pipelines_are_drawn_near_them() -> None:
    ratios: dict[bool, list[float]] = {}
    for informed in (True, False):
        study = _study(informed)
        _plans(study, 150, population_size=150)
        nodes = [node for trial in study.trials for node in decode(trial.params, FREE).nodes]
        ratios[informed] = [node.ratio for node in nodes if isinstance(node, Cut)]
    near = {informed: np.mean(np.abs(np.array(found) - 0.2) < 0.12) for informed, found in ratios.items()}
    assert near[True] > near[False] + 0.15
    assert max(ratios[True]) > 0.7


def test_plans_are_the_same_after_a_resume(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    _study(True, url)
    for count in (3, 5, 7):
        pieces = _plans(optuna.load_study(study_name="toy", storage=url), count)
    assert pieces == _plans(_study(True), 15)
