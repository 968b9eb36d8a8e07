"""Starting a study from another one: its front is run first, its operators' credit begins the history.

Pipelines carry over, values never do: the other study may be of another model, task or device, and
everything is trained and measured anew. The other study is only read, and only while the new one is made.
Where new nodes begin by sensitivity curves joins what a study starts with here too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from petra_optuna.errors import PipelineError, StudyError, UserError
from petra_optuna.evaluation import PrefixCache, priors_from_sensitivity, sensitivity_of
from petra_optuna.evolution import Bounds, contributions, hypervolume_subset, non_dominated
from petra_optuna.pipeline import Pipeline, SearchSpace, decode, encode, present_params
from petra_optuna.samplers import BOUNDS, CREDIT, PRIORS, WINDOW, directions_of, success_history
from petra_optuna.study import record as attributes
from petra_optuna.study.controls import controls
from petra_optuna.study.create import InitialTrials
from petra_optuna.study.lookup import load_study, specification_of
from petra_optuna.study.record import feasible_trials
from petra_optuna.study.specification import Origin, Specification
from petra_optuna.study.storage import location_of, open_storage
from petra_optuna.tasks import Task


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What a study took over from another one.

    Attributes:
        study: Name of the other study.
        trials: Numbers of its trials whose pipelines were enqueued after the controls, in that order.
        credit: How many mutations' credit begins the success history.
        known: Pipelines of its front that were left out as controls, or as one of the others again.
        beyond: Those left out because a population has no more room.
        foreign: Those left out because the new space cannot express them.
        reason: Why, of the first of these; None where there is none.
    """

    study: str
    trials: tuple[int, ...]
    credit: int
    known: int = 0
    beyond: int = 0
    foreign: int = 0
    reason: str | None = None


def warm_start_of(study: optuna.Study) -> WarmStart | None:
    """What the study took over from another one; None where it was started from none."""
    stored = study.user_attrs.get(attributes.WARM_START)
    return None if stored is None else WarmStart(**{**stored, "trials": tuple(stored["trials"])})


def warm_start_line(study: optuna.Study) -> str | None:
    """One line for people, with how many pipelines were left out and why."""
    start = warm_start_of(study)
    if start is None:
        return None
    front = len(start.trials) + start.known + start.beyond + start.foreign
    found = f"started from study {start.study!r}: {len(start.trials)} of {front} pipelines of its front, "
    found += f"credit of {start.credit} mutations"
    left = [(start.known, "known already"), (start.beyond, "more than a population")]
    left.insert(0, (start.foreign, f"not of this search space ({start.reason})"))
    texts = [f"{count} {why}" for count, why in left if count]
    return f"{found}; left out: {', '.join(texts)}" if texts else found


def origin_of(name: str, storage: str, from_study: str | None, from_storage: str | None) -> Origin | None:
    """Which study a new one starts from; None where it starts from none.

    Args:
        name: Of the new study.
        storage: URL that it is stored at.
        from_study: Name of the other one, or None.
        from_storage: URL that the other one is stored at; ``storage`` when None.

    Raises:
        UserError: When only the storage is given.
        StudyError: When a URL cannot be read, or the study would start from itself.
    """
    if from_study is None:
        if from_storage is not None:
            raise UserError("--from-storage needs --from-study: the name of the study to start from")
        return None
    place = None if from_storage is None else location_of(from_storage)
    if place == location_of(storage):
        place = None
    if place is None and from_study == name:
        raise StudyError(f"study {name!r} cannot start from itself; give the new one another --study name")
    return Origin(from_study, place)


def check_origin(database: RDBStorage, name: str, origin: Origin, url: str) -> None:
    """Refuse early where a study has yet to be made and the one that it starts from is not there.

    Args:
        database: That holds the new study, or shall.
        name: Of the new study.
        origin: The other study.
        url: Where it is stored.

    Raises:
        StudyError: As ``load_study``.
    """
    if name not in optuna.get_all_study_names(database):
        specification_of(load_study(open_storage(url, must_exist=True), origin.study))


def initial_from_study(
    origin: Origin, url: str, space: SearchSpace, specification: Specification
) -> InitialTrials:
    """What a new study starts with, from the front and the success history of another one.

    Of the front, those come first that dominate most hypervolume under the other study's bounds: the
    order of survival in the search. At most a population of them is taken.

    Args:
        origin: The other study.
        url: Where it is stored, with the password if it needs one.
        space: Search space of the new study.
        specification: Of the new study.

    Raises:
        StudyError: When there is no such study, it has no front, or nothing of it fits.
    """
    other = load_study(open_storage(url, must_exist=True), origin.study)
    theirs = specification_of(other).space
    if not {*theirs["body"], *theirs["conversions"]} & set(space.names):
        raise StudyError(f"study {origin.study!r} has no operation in common with this search space")
    front = _front(other)
    if not front:
        raise StudyError(
            f"study {origin.study!r} has no finished trial within its limits, so no front to start from"
        )
    known = {pipeline.hash for pipeline in controls(space, specification.budget)}
    found, start = _fitting(front, space, known)
    ordered = _best_first(other, found, specification.population_size)
    history = success_history(other, WINDOW)
    if not ordered and not history:
        raise StudyError(
            f"nothing of study {origin.study!r} carries over: its sampler has earned no credit, and of its "
            f"front {start['known']} are known already and {start['foreign']} not of this search space"
        )
    trials = tuple(trial.number for trial, _ in ordered)
    record = WarmStart(origin.study, trials, len(history), beyond=len(found) - len(ordered), **start)
    return InitialTrials(
        tuple(pipeline for _, pipeline in ordered),
        {
            attributes.WARM_START: dataclasses.asdict(record),
            CREDIT: [dataclasses.asdict(use) for use in history],
        },
    )


def with_priors(
    beginning: InitialTrials, task: Task, space: SearchSpace, cache: PrefixCache
) -> InitialTrials:
    """The beginning, and where new nodes begin by the sensitivity curves of the task's model.

    Raises:
        StudyError: When the cache cannot be written.
    """
    starts = [start.to_dict() for start in priors_from_sensitivity(sensitivity_of(task, cache), space)]
    return dataclasses.replace(beginning, attributes={**beginning.attributes, PRIORS: starts})


def _front(study: optuna.Study) -> list[FrozenTrial]:
    trials = feasible_trials(study)
    best = non_dominated([trial.values for trial in trials], directions_of(study)) if trials else ()
    return [trials[row] for row in best]


def _fitting(
    front: Sequence[FrozenTrial], space: SearchSpace, known: Collection[str]
) -> tuple[list[tuple[FrozenTrial, Pipeline]], dict[str, Any]]:
    """The new pipelines among them, and the counts of the others."""
    found: list[tuple[FrozenTrial, Pipeline]] = []
    seen, reasons = set(known), []
    for trial in front:
        try:
            pipeline = _read(trial, space)
        except PipelineError as error:
            reasons.append(str(error))
            continue
        if pipeline.hash not in seen:
            seen.add(pipeline.hash)
            found.append((trial, pipeline))
    twice = len(front) - len(found) - len(reasons)
    return found, {"known": twice, "foreign": len(reasons), "reason": reasons[0] if reasons else None}


def _read(trial: FrozenTrial, space: SearchSpace) -> Pipeline:
    """The trial's pipeline in another space than its own.

    Raises:
        PipelineError: When that space has no such pipeline.
    """
    params = present_params(trial.params, space)
    pipeline = decode(params, space)
    if unknown := sorted(params.keys() - encode(pipeline, space).keys()):
        raise PipelineError(f"no parameter {unknown[0]!r}")
    return pipeline


def _best_first(
    study: optuna.Study, found: Sequence[tuple[FrozenTrial, Pipeline]], size: int
) -> list[tuple[FrozenTrial, Pipeline]]:
    if not found:
        return []
    values = np.array([trial.values for trial, _ in found])
    units = Bounds.from_dict(study.user_attrs[BOUNDS]).unit(values, directions_of(study))
    kept = np.array(hypervolume_subset(units, size))
    ordered = kept[np.argsort(-contributions(units[kept]), kind="stable")]
    return [found[row] for row in ordered]
