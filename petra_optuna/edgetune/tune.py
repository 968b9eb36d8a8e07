"""Running and continuing tuning studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage

from petra_optuna.database import (
    DEFAULT_URL,
    StorageLike,
    absolute_url,
    open_storage,
    storage_url,
)
from petra_optuna.edgetune.budgets import BudgetKind, TuningBudget
from petra_optuna.edgetune.limits import FigureLimit
from petra_optuna.edgetune.objective import RUNTIME, TuningObjective, tuning_objective
from petra_optuna.edgetune.run import TuningRun, counter_of
from petra_optuna.edgetune.space import checked_groups, checked_space, most_threads
from petra_optuna.edgetune.specification import (
    SPECIFICATION,
    TuningSpecification,
    WorkloadSource,
    is_tuning,
    specification_of,
)
from petra_optuna.edgetune.target import TARGET
from petra_optuna.edgetune.workload import Workload
from petra_optuna.errors import StudyError, UserError
from petra_optuna.inference import (
    DEFAULT_ALGORITHM,
    MAX_BATCH,
    EdgeDevice,
    is_nested,
    parse_device,
    serving_cores,
)
from petra_optuna.measurement import COUNTERS, available_cores
from petra_optuna.samplers import Groups, grid_size, store_whole
from petra_optuna.samplers import algorithm as find_algorithm
from petra_optuna.study import Callback, Stop, draft_study, find, load_study, stop_of

DEFAULT_INFERENCES = 10_000
_LARGEST_GRID = 1000


def tune(
    workload: Workload,
    space: Mapping[str, BaseDistribution] | None = None,
    *,
    objective: str | TuningObjective = RUNTIME,
    inference_objective: str | None = "throughput",
    budget: TuningBudget | BudgetKind = "multi",
    algorithm: str = "bohb",
    inference_algorithm: str = DEFAULT_ALGORITHM,
    groups: Groups | None = None,
    device: EdgeDevice | str = "host",
    trials: int | None = None,
    timeout_s: float | None = None,
    target_quality: float | None = None,
    storage: StorageLike = DEFAULT_URL,
    name: str | None = None,
    source: WorkloadSource | None = None,
    inferences: int = DEFAULT_INFERENCES,
    max_batch: int = MAX_BATCH,
    energy_estimator: str | None = None,
    train_threads: int | None = None,
    limits: Sequence[str] = (),
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> optuna.Study:
    """Tune a model, its training and its serving in one search (EDGETUNE's onefold tuning).

    A study of the same name and specification in the storage is continued.

    Args:
        workload: Data, metric, loss and networks.
        space: Parameters whose ranges differ from the workload's, by name; ``train_threads`` may be among
            them.
        objective: ``runtime``, ``energy``, ``quality`` or an objective of the user's.
        inference_objective: ``throughput``, ``latency``, ``energy`` or ``memory``, for which batch size,
            threads, cores and runtime are tuned; None for tuning without regard to inference.
        budget: What trials may train from rung to rung, or its kind.
        algorithm: Search algorithm of models and training (``samplers.ALGORITHMS``).
        inference_algorithm: Search algorithm of the nested searches.
        groups: Names of other algorithms -> parameters that they draw, of either search.
        device: Device that models are served on, or its name or file.
        trials: Finished trials that the study shall have in the end; the points of the grid for ``grid``.
        timeout_s: Seconds after which no new trial starts.
        target_quality: Metric of a file on the selection split at which the run ends.
        storage: SQLAlchemy URL, path of a SQLite file, or ``RDBStorage``.
        name: Study name; ``tune-`` and the workload's name when None.
        source: How another process can build the workload; by its name alone when None.
        inferences: Samples that a model serves, in the objectives that count inference.
        max_batch: Largest batch that is served.
        energy_estimator: ``cpu-time:WATTS`` where nothing counts energy.
        train_threads: Threads of training where they are no parameter; what the device leaves free when None.
        limits: Bounds such as ``quality>=0.9`` or ``inference_s<=2`` on figures of a trial, the fields of
            ``TrialFigures``. Trials beyond them lead the search away and are no result.
        seed: Seed of the search and of all training.
        callbacks: Called after each trial, as in Optuna.

    Returns:
        The study; ``petra_optuna.result_of(study)`` reads its best trial.

    Raises:
        UserError: When something given cannot be used.

    Example:
        >>> short = TuningBudget(max_epochs=2)
        >>> tuned = tune(workload, trials=1, budget=short, max_batch=2, storage="sqlite:///storage/tune.db")
        >>> tuned.study_name
        'tune-mine'
    """
    chosen = tuning_objective(objective, workload.task.metric)
    profile = parse_device(device) if isinstance(device, str) else device
    threads = max(1, available_cores() - profile.cores) if train_threads is None else train_threads
    parameters = checked_space(workload, space or {})
    specification = TuningSpecification(
        workload=source or WorkloadSource(workload.name),
        fingerprint=workload.task.fingerprint,
        space=parameters,
        objective=chosen.name,
        direction=chosen.direction,
        inference_objective=inference_objective,
        inferences=inferences,
        budget=TuningBudget(budget) if isinstance(budget, str) else budget,
        algorithm=algorithm,
        groups=checked_groups(groups or {}, parameters),
        inference_algorithm=inference_algorithm,
        device=profile.on(len(serving_cores(profile, most_threads(parameters, threads)))),
        max_batch=max_batch,
        energy=energy_estimator or COUNTERS,
        train_threads=threads,
        seed=seed,
        limits=tuple(FigureLimit.parse(text) for text in limits),
    )
    url = absolute_url(storage_url(storage))
    run = TuningRun(workload, specification, chosen, url, _stop(specification, trials, timeout_s))
    specification.check()  # refuse before there is a study
    if inference_objective is not None and most_threads(parameters, threads) >= max(2, available_cores()):
        raise UserError(
            f"`train_threads` of {most_threads(parameters, threads)} leave none of this machine's "
            f"{available_cores()} cores to the inference server; give fewer, or no `inference_objective`"
        )
    counter_of(specification, chosen)
    study = _create(open_storage(url), name or f"tune-{workload.name}", specification)
    run.go_on(study, callbacks, target_quality)
    return study


def resume_tuning(
    workload: Workload,
    *,
    storage: StorageLike = DEFAULT_URL,
    name: str | None = None,
    objective: TuningObjective | None = None,
    trials: int | None = None,
    timeout_s: float | None = None,
    target_quality: float | None = None,
    callbacks: Sequence[Callback] = (),
) -> optuna.Study:
    """Continue a stored tuning study; arguments as in ``tune``, what is not given comes from the study.

    Raises:
        UserError: When something given cannot be used, or the workload's model or data differ.

    Example:
        >>> tuned = resume_tuning(workload, storage="sqlite:///storage/tune.db", name="tuned", trials=2)
        >>> len(tuned.trials) >= 2
        True
    """
    url = absolute_url(storage_url(storage))
    study = load_study(open_storage(url, must_exist=True), name)
    specification = specification_of(study)
    if workload.task.fingerprint != specification.fingerprint:
        raise StudyError(
            f"the workload's model or data are not those of study {study.study_name!r}; "
            "give the same `data_root`"
        )
    if objective is None and specification.objective == workload.task.metric.name:
        chosen = tuning_objective("quality", workload.task.metric)
    else:
        chosen = tuning_objective(objective or specification.objective, workload.task.metric)
    if chosen.name != specification.objective:
        raise StudyError(
            f"study {study.study_name!r} has the objective {specification.objective!r}, not {chosen.name!r}"
        )
    given = None if (trials, timeout_s) == (None, None) else Stop(trials, timeout_s)
    if given is None and target_quality is None:
        target_quality = study.user_attrs.get(TARGET)
    run = TuningRun(workload, specification, chosen, url, stop_of(study, given))
    run.go_on(study, callbacks, target_quality)
    return study


def _create(storage: RDBStorage, name: str, specification: TuningSpecification) -> optuna.Study:
    """The study of that name, made where there is none.

    Raises:
        StudyError: When it exists with another specification, or is no tuning study.
    """
    if is_nested(name):
        raise StudyError(f"names such as {name!r} are those of nested searches; give another `name`")
    study = find(storage, name)
    if study is None:
        draft = draft_study(name, [(specification.objective, specification.direction)])
        draft.set_user_attr(SPECIFICATION, specification.to_dict())
        store_whole(draft, storage, lambda attributes, trials: False)
        study = optuna.load_study(study_name=name, storage=storage)
    if not is_tuning(study):
        raise StudyError(f"study {name!r} exists and is no tuning study; give another `name`")
    differences = specification_of(study).differences(specification)
    if differences:
        raise StudyError(
            f"study {name!r} exists with another specification ({'; '.join(differences)}); "
            "give another `name`, or continue it with `resume`"
        )
    return study


def _stop(specification: TuningSpecification, trials: int | None, timeout_s: float | None) -> Stop:
    """When the run ends.

    Raises:
        UserError: When nothing says so, or the grid is too large to be meant.
    """
    if find_algorithm(specification.algorithm).exhaustive and trials is None:
        size = grid_size(specification.space)
        if size > _LARGEST_GRID and timeout_s is None:
            raise UserError(f"the grid has {size} points; give `trials`, or a smaller space")
        trials = size
    return Stop(trials, timeout_s)
