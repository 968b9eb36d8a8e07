"""A study that starts from another one: what carries over, what does not, and what is said of it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from support.postgres import new_database
from support.specification import SPACE, specification_with

from petra_optuna import cli
from petra_optuna.database import open_storage
from petra_optuna.errors import StudyError, UserError
from petra_optuna.evaluation import Rungs
from petra_optuna.evolution import Bounds
from petra_optuna.operations import Half, LowRank, Prune, QuantizeStatic, Train
from petra_optuna.pipeline import Pipeline, SearchSpace, decode, distributions, encode
from petra_optuna.samplers import BOUNDS, CREDIT, OperatorUse, PetraSampler, operator_history
from petra_optuna.study import (
    Specification,
    StudyRecord,
    optimize,
    origin_of,
    resume,
    trial_record,
    warm_start_line,
)
from petra_optuna.study import record as attributes
from petra_optuna.study.specification import Origin
from petra_optuna.study.warm_start import initial_from_study
from petra_optuna.tasks import Task

LEAN = SearchSpace((Prune,), (Half,), max_length=2)
WIDER = SearchSpace((Prune, Train, LowRank), (Half, QuantizeStatic), max_length=4)
ORIGINAL = (0.9, 10.0, 100.0, 1e6)
DIRECTIONS = ("maximize", "minimize", "maximize", "minimize")
CREDITS = [OperatorUse("drop", None, None, 1.0), OperatorUse("insert", "swap", None, 0.5)]
EVALUATED: dict[str, Any] = {trial_record.EVALUATION: {}}
"""What a trial of our own has, and one that somebody added has not."""

Made = list[tuple[Pipeline, tuple[float, float, float, float]]]


def _pruned(ratio: float) -> Pipeline:
    return Pipeline((Prune(removed=ratio),))


def _at(quality: float, share: float) -> tuple[float, float, float, float]:
    """Values of a file that is smaller and faster by so much."""
    return quality, 10.0 * share, 100.0 / share, 1e6 * share


FRONT: Made = [
    (Pipeline(), _at(0.9, 1.0)),
    (_pruned(0.3), _at(0.89, 0.8)),
    (_pruned(0.5), _at(0.86, 0.3)),
    (_pruned(0.7), _at(0.859, 0.299)),
    (_pruned(0.4), _at(0.84, 0.9)),  # dominated
]
"""By the volume that each adds: 0.5, 0.3, 0.7."""


def _other(
    url: str, made: Made, space: SearchSpace = SPACE, credit: list[OperatorUse] = CREDITS
) -> optuna.Study:
    """A study as if a search had made it: pipelines with values, and a success history."""
    study = optuna.create_study(storage=open_storage(url), study_name="other", directions=DIRECTIONS)
    study.set_user_attr(attributes.SPECIFICATION, specification_with(space).to_dict())
    study.set_user_attr(BOUNDS, Bounds(ORIGINAL, (False, True, True, True)).to_dict())
    study.set_user_attr(CREDIT, [dataclasses.asdict(use) for use in credit])
    for pipeline, values in made:
        params = encode(pipeline, space)
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=distributions(params, space),
                values=values,
                user_attrs=EVALUATED,
            )
        )
    study.set_user_attr(attributes.COMPLETE, True)
    return study


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/other.db"


def _carried(url: str, space: SearchSpace = SPACE, size: int = 8) -> tuple[list[Pipeline], dict[str, Any]]:
    specification = specification_with(space, population_size=size)
    initial = initial_from_study(Origin("other", None), url, space, specification)
    assert initial.warm_start is not None
    return list(initial.pipelines), initial.warm_start.to_dict()


def test_the_front_comes_in_the_order_of_survival_without_controls(url: str) -> None:
    _other(url, FRONT)
    pipelines, record = _carried(url)
    assert pipelines == [_pruned(0.5), _pruned(0.3), _pruned(0.7)]
    assert record["trials"] == (2, 1, 3)
    assert (record["known"], record["beyond"], record["foreign"], record["credit"]) == (1, 0, 0, 2)


def test_at_most_a_population_comes(url: str) -> None:
    _other(url, FRONT)
    pipelines, record = _carried(url, size=2)
    assert pipelines == [_pruned(0.5), _pruned(0.3)]
    assert record["beyond"] == 1


def test_what_does_the_same_comes_once(url: str) -> None:
    same = Pipeline((Prune(removed=0.5), QuantizeStatic()))
    _other(url, [(same, _at(0.88, 0.5)), (same, _at(0.86, 0.45)), (Pipeline((Half(),)), _at(0.84, 0.4))])
    pipelines, record = _carried(url)
    assert pipelines == [same]
    assert record["known"] == 2


def test_trials_beyond_a_limit_are_on_no_front(url: str) -> None:
    study = _other(url, FRONT[:1])
    params = encode(_pruned(0.6), SPACE)
    study.add_trial(
        optuna.trial.create_trial(
            params=params,
            distributions=distributions(params, SPACE),
            values=_at(0.99, 0.1),
            constraints={"size_bytes": 1.0},
            user_attrs=EVALUATED,
        )
    )
    assert _carried(url)[0] == []


def test_pipelines_that_the_space_cannot_express_are_left_out_and_counted(url: str) -> None:
    """Another operation; a length that is not allowed; the rest of the front comes."""
    long = Pipeline((Prune(removed=0.2), Train(), Train()))
    made = [*FRONT, (Pipeline((LowRank(),)), _at(0.95, 0.5)), (long, _at(0.97, 0.6))]
    study = _other(url, made, WIDER)
    pipelines, record = _carried(url)
    assert all(not SPACE.violations(pipeline) for pipeline in pipelines)
    assert record["foreign"] == 2
    assert "unknown operation 'low_rank'" in record["reason"]
    study.set_user_attr(attributes.WARM_START, record)
    line = warm_start_line(study)
    assert line is not None
    assert "left out: 2 not of this search space (unknown operation" in line
    assert "\n" not in line
    assert line.startswith(f"started from study 'other': {len(pipelines)} of ")


def test_a_field_with_another_range_is_left_out(url: str) -> None:
    study = _other(url, FRONT[1:3])
    params = {**encode(_pruned(0.5), SPACE), "n0.prune.removed": 0.99}
    kinds = distributions(encode(_pruned(0.5), SPACE), SPACE)
    kinds["n0.prune.removed"] = optuna.distributions.FloatDistribution(0.0, 1.0)
    study.add_trial(
        optuna.trial.create_trial(
            params=params, distributions=kinds, values=_at(0.88, 0.1), user_attrs=EVALUATED
        )
    )
    kinds["n0.prune.sharpness"] = optuna.distributions.FloatDistribution(0.0, 1.0)
    params = {**params, "n0.prune.removed": 0.45, "n0.prune.sharpness": 0.5}
    study.add_trial(
        optuna.trial.create_trial(
            params=params, distributions=kinds, values=_at(0.885, 0.2), user_attrs=EVALUATED
        )
    )
    pipelines, record = _carried(url)
    assert pipelines == [_pruned(0.3)]
    assert record["foreign"] == 2
    assert "removed must be in" in record["reason"]


def test_a_front_that_does_not_fit_still_gives_its_credit(url: str) -> None:
    _other(url, [(Pipeline((LowRank(),)), _at(0.95, 0.5))], WIDER)
    pipelines, record = _carried(url)
    assert pipelines == []
    assert (record["foreign"], record["credit"]) == (1, 2)


@pytest.mark.parametrize(
    ("made", "space", "credit", "reason"),
    [
        ([], SPACE, CREDITS, "no finished trial within its limits"),
        ([(Pipeline(), _at(0.9, 1.0))], SPACE, [], "nothing of study 'other' carries over"),
        ([(Pipeline((LowRank(),)), ORIGINAL)], SearchSpace((LowRank,)), CREDITS, "no operation in common"),
    ],
)
def test_a_study_that_gives_nothing_is_refused(
    url: str, made: Made, space: SearchSpace, credit: list[OperatorUse], reason: str
) -> None:
    _other(url, made, space, credit)
    with pytest.raises(StudyError, match=reason):
        _carried(url)


def test_a_missing_study_and_one_of_another_program_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no database"):
        _carried(url)
    optuna.create_study(storage=open_storage(url), study_name="theirs", directions=DIRECTIONS)
    with pytest.raises(StudyError, match="there is no study 'other'"):
        _carried(url)
    with pytest.raises(StudyError, match="has no petra specification"):
        initial_from_study(Origin("theirs", None), url, SPACE, specification_with())


def test_the_other_study_is_only_read(url: str) -> None:
    study = _other(url, FRONT)
    before = study.get_trials(), study.user_attrs
    _carried(url)
    again = optuna.load_study(study_name="other", storage=open_storage(url))
    assert (again.get_trials(), again.user_attrs) == before


def test_the_origin_names_the_database_without_passwords_and_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = "sqlite:///here.db", "sqlite:///there.db"
    assert origin_of("new", here, None, None) is None
    assert origin_of("new", here, "old", None) == Origin("old", None)
    assert origin_of("new", here, "old", f"sqlite:///{tmp_path}/here.db") == Origin("old", None)
    assert origin_of("new", here, "new", there) == Origin("new", f"sqlite:///{tmp_path}/there.db")
    server = "postgresql+psycopg://me:secret@host:5432/studies?host=%2Ftmp&sslpassword=hidden"
    found = origin_of("new", here, "old", server)
    assert found is not None
    assert found.storage == "postgresql+psycopg://me@host:5432/studies?host=%2Ftmp"
    with pytest.raises(UserError, match="`from_storage` needs `from_study`"):
        origin_of("new", here, None, there)
    with pytest.raises(StudyError, match="cannot start from itself"):
        origin_of("new", here, "new", None)
    assert origin_of("new", here, "old", "there.db") == Origin("old", f"sqlite:///{tmp_path}/there.db")


def test_older_specifications_read_as_before() -> None:
    plain = specification_with()
    stored = plain.to_dict()
    del stored["from_study"], stored["sensitivity"]
    assert Specification.from_dict(stored) == plain
    everywhere = dataclasses.replace(plain, rungs=Rungs(2, 0.5, levels=None))
    stored = everywhere.to_dict()
    del stored["rungs"]["levels"]
    assert Specification.from_dict(stored) == everywhere
    warm = dataclasses.replace(plain, from_study=Origin("other", None))
    assert Specification.from_dict(warm.to_dict()) == warm
    assert any("from_study" in difference for difference in plain.differences(warm))


def _warm(task: Task, url: str, trials: int, **changes: Any) -> optuna.Study:
    settings: dict[str, Any] = {"from_study": "other", "population_size": 2, "name": "new", **changes}
    return optimize(task, trials=trials, storage=url, space=LEAN, **settings)


def test_a_warm_study_measures_anew_and_goes_on_as_it_began(
    tiny_task: Task,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _other(url, FRONT)
    new = f"sqlite:///{tmp_path}/new.db"
    cache = tmp_path / "cache"
    study = _warm(tiny_task, new, 1, from_storage=url, cache=cache)
    first = [Pipeline(), Pipeline((Half(),)), _pruned(0.5), _pruned(0.3)]
    enqueued = [trial.system_attrs["fixed_params"] for trial in study.trials]
    assert enqueued == [encode(pipeline, LEAN) for pipeline in first]
    assert StudyRecord(study).specification.from_study == Origin("other", url)
    assert operator_history(study, 50) == CREDITS
    state = PetraSampler(LEAN, seed=0).state(study)
    assert (state.use_counts["drop"], state.use_counts["swap"], state.credit["drop"]) == (1, 1, 1.0)
    (tmp_path / "other.db").unlink()  # whatever becomes of the other study, this one goes on
    with pytest.raises(StudyError, match="from_study"):
        _warm(tiny_task, new, 1, from_study=None, cache=cache)
    _warm(tiny_task, new, 2, from_storage=url, cache=cache)
    study = resume(tiny_task, storage=new, trials=3)
    read = [decode(trial.params, LEAN) for trial in study.trials[:3]]
    assert read == first[:3]
    assert tuple(study.trials[2].values) != FRONT[2][1]
    assert operator_history(study, 50)[:2] == CREDITS
    start = StudyRecord(study).warm_start
    assert start is not None
    assert start.trials == (2, 1)
    monkeypatch.setattr(sys, "argv", ["petra", "front", "--storage", new])
    with pytest.raises(SystemExit):
        cli.main()
    assert "started from study 'other': 2 of 4 pipelines" in capsys.readouterr().out


def test_both_studies_may_be_in_one_server_database(
    tiny_task: Task,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    served = new_database(postgres_url, tmp_path.name)
    _other(served, FRONT)
    study = _warm(tiny_task, served, 1)
    assert StudyRecord(study).specification.from_study == Origin("other", None)
    assert [trial.system_attrs["fixed_params"]["length"] for trial in study.trials] == [0, 0, 1, 1]
