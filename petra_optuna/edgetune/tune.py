"""Running and continuing tuning studies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from petra_optuna.database import (
    DEFAULT_URL,
    StorageLike,
    absolute_url,
    artifacts_folder,
    one_line_storage_errors,
    open_storage,
    storage_url,
)
from petra_optuna.edgetune.budgets import BudgetKind, TuningBudget
from petra_optuna.edgetune.objective import RUNTIME, TuningObjective, tuning_objective
from petra_optuna.edgetune.record import record_of
from petra_optuna.edgetune.specification import (
    SPECIFICATION,
    SYSTEM_SPACE,
    TuningSpecification,
    WorkloadSource,
    check_space,
    is_tuning,
    specification_of,
)
from petra_optuna.edgetune.trial import TuningTrial
from petra_optuna.edgetune.workload import Workload
from petra_optuna.errors import StudyError, UserError
from petra_optuna.inference import (
    DEFAULT_ALGORITHM,
    MAX_BATCH,
    EdgeDevice,
    InferenceServer,
    InferenceTuner,
    Pause,
    inference_objective,
    parse_device,
    serving_cores,
)
from petra_optuna.measurement import Counter, available_cores, estimator, find_counter
from petra_optuna.samplers import GroupedSampler, Space, algorithm, grid_size, store_whole
from petra_optuna.scratch import scratch_folder
from petra_optuna.study import Callback, Stop, TrialLoop, draft_study, find

COUNTERS = "counters"
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
    groups: Mapping[str, Sequence[str]] | None = None,
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
        groups: Names of other algorithms -> parameters that they draw.
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
        seed: Seed of the search and of all training.
        callbacks: Called after each trial, as in Optuna.

    Returns:
        The study; ``edgetune.result_of(study)`` reads its best trial.

    Raises:
        UserError: When something given cannot be used.
    """
    chosen = tuning_objective(objective, workload.task.metric)
    profile = parse_device(device) if isinstance(device, str) else device
    threads = train_threads or max(1, available_cores() - profile.cores)
    parameters = _space(workload, space or {})
    cores = serving_cores(profile, _most_threads(parameters, threads))
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
        groups={known: tuple(names) for known, names in (groups or {}).items()},
        inference_algorithm=inference_algorithm,
        device=profile.on(len(cores)),
        max_batch=max_batch,
        energy=energy_estimator or COUNTERS,
        train_threads=threads,
        seed=seed,
    )
    counter = _counter(specification, chosen)
    stop = _stop(specification, trials, timeout_s)
    url = absolute_url(storage_url(storage))
    study = _create(open_storage(url), name or f"tune-{workload.name}", specification)
    ends: list[Callback] = list(callbacks)
    if target_quality is not None:
        ends.append(_TargetReached(target_quality, workload))
    study.sampler, study.pruner = _sampler(specification, len(study.trials)), _pruner(specification)
    with one_line_storage_errors(), _trial(workload, specification, chosen, counter, url, cores) as trial:
        TrialLoop(study, stop, ends).run(trial)
    return study


@contextlib.contextmanager
def _trial(
    workload: Workload,
    specification: TuningSpecification,
    objective: TuningObjective,
    counter: Counter | None,
    url: str,
    cores: tuple[int, ...],
) -> Iterator[TuningTrial]:
    """The study's objective with a scratch folder and an inference server of its own, on cores of its own."""
    pause = Pause()
    store_folder = artifacts_folder(url)
    store_folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(scratch_folder("tuning")))
        server = None
        if specification.inference_objective is not None:
            tuner = InferenceTuner(
                storage=open_storage(url),
                device=specification.device,
                cores=cores,
                objective=inference_objective(specification.inference_objective),
                max_batch=specification.max_batch,
                algorithm=specification.inference_algorithm,
                seed=specification.seed,
                energy=specification.energy,
            )
            server = stack.enter_context(InferenceServer(tuner, url, pause))
        stack.enter_context(_kept_from(cores))
        yield TuningTrial(
            workload,
            specification,
            objective,
            FileSystemArtifactStore(str(store_folder)),
            folder,
            server,
            pause,
            counter,
        )


@contextlib.contextmanager
def _kept_from(cores: tuple[int, ...]) -> Iterator[None]:
    """Keep this thread, which trains, from the cores that serve, where others are left."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, (before - set(cores)) or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _create(storage: RDBStorage, name: str, specification: TuningSpecification) -> optuna.Study:
    """The study of that name, made where there is none.

    Raises:
        StudyError: When it exists with another specification, or is no tuning study.
    """
    existing = find(storage, name)
    if existing is None:
        draft = draft_study(name, [(specification.objective, specification.direction)])
        draft.set_user_attr(SPECIFICATION, specification.to_dict())
        store_whole(draft, storage, lambda attributes, trials: False)
        existing = optuna.load_study(study_name=name, storage=storage)
    if not is_tuning(existing):
        raise StudyError(f"study {name!r} exists and is no tuning study; give another `name`")
    differences = specification_of(existing).differences(specification)
    if differences:
        raise StudyError(
            f"study {name!r} exists with another specification ({'; '.join(differences)}); "
            "give another `name`"
        )
    return existing


def _space(workload: Workload, given: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    known = {**workload.model_space, **workload.training_space}
    system = {name: one for name, one in given.items() if name in SYSTEM_SPACE}
    check_space(given, {**known, **system})
    return {**known, **given}


def _most_threads(space: Space, threads: int) -> int:
    """Most threads that any trial trains with."""
    if "train_threads" not in space:
        return threads
    distribution = space["train_threads"]
    if not isinstance(distribution, optuna.distributions.IntDistribution) or distribution.low < 1:
        raise UserError("`train_threads` of the space must be an IntDistribution from 1 on")
    return distribution.high


def _counter(specification: TuningSpecification, objective: TuningObjective) -> Counter | None:
    """What counts or estimates the energy of training; None where nothing needs it.

    Raises:
        UserError: When energy is an objective and nothing counts it.
    """
    if not objective.needs_energy and specification.inference_objective != "energy":
        return None
    counter = find_counter() if specification.energy == COUNTERS else estimator(specification.energy)
    if isinstance(counter, str):
        raise UserError(
            f"energy cannot be an objective here: {counter}; name an estimator, for example "
            "`energy_estimator` cpu-time:6"
        )
    return counter


def _stop(specification: TuningSpecification, trials: int | None, timeout_s: float | None) -> Stop:
    """When the run ends.

    Raises:
        UserError: When nothing says so, or the grid is too large to be meant.
    """
    exhaustive = algorithm(specification.algorithm).exhaustive
    if exhaustive and trials is None:
        size = grid_size(specification.space)
        if size > _LARGEST_GRID and timeout_s is None:
            raise UserError(f"the grid has {size} points; give `trials`, or a smaller space")
        trials = size
    return Stop(trials, timeout_s)


def _sampler(specification: TuningSpecification, trials: int) -> BaseSampler:
    """The sampler; another seed after each resumption, so that no draw is repeated."""
    seed = specification.seed + trials
    grouped = {name: known for known, names in specification.groups.items() for name in names}
    check_space(dict.fromkeys(grouped, optuna.distributions.FloatDistribution(0, 1)), specification.space)
    rest = {name: one for name, one in specification.space.items() if name not in grouped}
    default = algorithm(specification.algorithm).sampler(seed, rest)
    if not grouped:
        return default
    others = {
        names: algorithm(known).sampler(seed, {name: specification.space[name] for name in names})
        for known, names in specification.groups.items()
    }
    return GroupedSampler(default, others)


def _pruner(specification: TuningSpecification) -> BasePruner:
    if not algorithm(specification.algorithm).early_stopping:
        return NopPruner()
    budget = specification.budget
    return HyperbandPruner(min_resource=1, max_resource=budget.last, reduction_factor=budget.reduction_factor)


class _TargetReached:
    """An Optuna callback that ends the run once a file is good enough."""

    def __init__(self, target: float, workload: Workload) -> None:
        self._target = target
        self._more_is_better = workload.task.metric.direction == "maximize"

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        record = record_of(trial)
        if record is None or record.quality is None:
            return
        reached = record.quality >= self._target if self._more_is_better else record.quality <= self._target
        if reached:
            study.stop()
