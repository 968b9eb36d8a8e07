"""Starting a study from another one: its front is run first, its operators' credit begins the history.

Pipelines carry over, values never do: the other study may be of another model, task or device, and everything
is trained and measured anew. The other study is only read, and only while the new one is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from petra_optuna.database import location_of, open_storage
from petra_optuna.errors import PipelineError, StudyError, UserError
from petra_optuna.evolution import contributions, hypervolume_subset
from petra_optuna.pipeline import Pipeline, SearchSpace, decode, encode, present_params
from petra_optuna.samplers import WINDOW, directions_of, operator_history
from petra_optuna.study.controls import controls
from petra_optuna.study.create import InitialTrials
from petra_optuna.study.lookup import load_study
from petra_optuna.study.record import StudyRecord
from petra_optuna.study.specification import Origin, Specification, WarmStart


def warm_start_line(study: optuna.Study) -> str | None:
    """One line on what the study took over from another one, and how many pipelines were left out and why.

    None where the study was started from none.
    """
    warm = StudyRecord(study).warm_start
    if warm is None:
        return None
    front = len(warm.trials) + warm.known + warm.beyond + warm.foreign
    line = f"started from study {warm.study!r}: {len(warm.trials)} of {front} pipelines of its front, "
    line += f"credit of {warm.credit} mutations"
    left_out = [
        (warm.foreign, f"not of this search space ({warm.reason})"),
        (warm.known, "known already"),
        (warm.beyond, "more than a population"),
    ]
    texts = [f"{count} {reason}" for count, reason in left_out if count]
    return f"{line}; left out: {', '.join(texts)}" if texts else line


def origin_of(name: str, storage: str, from_study: str | None, from_storage: str | None) -> Origin | None:
    """The study that a new one starts from; None where it starts from none.

    Args:
        name: Name of the new study.
        storage: URL of the new study's database.
        from_study: Name of the other study, or None.
        from_storage: URL of the other study's database; ``storage`` when None.

    Raises:
        UserError: When only the storage is given.
        StudyError: When a URL cannot be read, or the study would start from itself.
    """
    if from_study is None:
        if from_storage is not None:
            raise UserError("`from_storage` needs `from_study`: the name of the study to start from")
        return None
    location = None if from_storage is None else location_of(from_storage)
    if location == location_of(storage):
        location = None
    if location is None and from_study == name:
        raise StudyError(f"study {name!r} cannot start from itself; give the new one another `name`")
    return Origin(from_study, location)


def check_origin(database: RDBStorage, name: str, origin: Origin, url: str) -> None:
    """Refuse early where a study has yet to be made and the one that it starts from is not there.

    Args:
        database: Database of the new study.
        name: Name of the new study.
        origin: The other study.
        url: URL of the other study's database.

    Raises:
        StudyError: When it is missing, was created only in part, or was made by another program.
    """
    if name not in optuna.get_all_study_names(database):
        _ = StudyRecord(load_study(open_storage(url, read_only=True), origin.study)).specification


def initial_from_study(
    origin: Origin, url: str, space: SearchSpace, specification: Specification
) -> InitialTrials:
    """What a new study begins with, from the front and the success history of another one.

    At most a population of the front is taken. The pipelines that dominate most hypervolume under the other
    study's bounds come first: the order of survival in the search.

    Args:
        origin: The other study.
        url: URL of its database, with the password if it needs one.
        space: Search space of the new study.
        specification: Specification of the new study.

    Raises:
        StudyError: When there is no such study, it has no front, or nothing of it fits.
    """
    other = load_study(open_storage(url, read_only=True), origin.study)
    record = StudyRecord(other)
    other_space = record.specification.space
    if not {*other_space["body"], *other_space["conversions"]} & set(space.names):
        raise StudyError(f"study {origin.study!r} has no operation in common with this search space")
    front = record.front_trials()
    if not front:
        raise StudyError(
            f"study {origin.study!r} has no finished trial within its limits, so no front to start from"
        )
    own_controls = {pipeline.hash for pipeline in controls(space, specification.budget)}
    fitting, warm = _fitting(origin.study, front, space, own_controls)
    taken = _best_first(other, fitting, specification.population_size)
    history = operator_history(other, WINDOW)
    if not taken and not history:
        raise StudyError(
            f"nothing of study {origin.study!r} carries over: its sampler has earned no credit, and of its "
            f"front {warm.known} are known already and {warm.foreign} not of this search space"
        )
    warm = dataclasses.replace(
        warm,
        trials=tuple(trial.number for trial, _ in taken),
        credit=len(history),
        beyond=len(fitting) - len(taken),
    )
    return InitialTrials(tuple(pipeline for _, pipeline in taken), warm, tuple(history))


def _fitting(
    study: str, front: Sequence[FrozenTrial], space: SearchSpace, known: Collection[str]
) -> tuple[list[tuple[FrozenTrial, Pipeline]], WarmStart]:
    """The trials of a front with their pipelines that are new to the space; the counts of the others."""
    fitting: list[tuple[FrozenTrial, Pipeline]] = []
    seen, reasons = set(known), []
    for trial in front:
        try:
            pipeline = _read(trial, space)
        except PipelineError as error:
            reasons.append(str(error))
            continue
        if pipeline.hash not in seen:
            seen.add(pipeline.hash)
            fitting.append((trial, pipeline))
    repeated = len(front) - len(fitting) - len(reasons)
    reason = reasons[0] if reasons else None
    return fitting, WarmStart(study, (), 0, known=repeated, foreign=len(reasons), reason=reason)


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
    study: optuna.Study, fitting: Sequence[tuple[FrozenTrial, Pipeline]], size: int
) -> list[tuple[FrozenTrial, Pipeline]]:
    """At most ``size`` of the trials, those that dominate most hypervolume first."""
    if not fitting:
        return []
    record = StudyRecord(study)
    measured = record.measured_values
    values = np.array([measured.values(trial) for trial, _ in fitting])
    units = record.bounds.unit(values, directions_of(study))
    kept = np.array(hypervolume_subset(units, size))
    ordered = kept[np.argsort(-contributions(units[kept]), kind="stable")]
    return [fitting[row] for row in ordered]
