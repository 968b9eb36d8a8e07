"""Running and resuming studies."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from petra_optuna.errors import StudyError, TrialError, UserError, one_line
from petra_optuna.evaluation import (
    DEFAULT_OBJECTIVES,
    Budget,
    Limits,
    PrefixCache,
    Rungs,
)
from petra_optuna.measurement import DeviceProfile, available_cores
from petra_optuna.operations import EVERY_OPERATION, check_runs, default_space
from petra_optuna.pipeline import SearchSpace
from petra_optuna.samplers import PetraSampler, fail_orphans, rename_enqueued
from petra_optuna.study import record as attributes
from petra_optuna.study.create import InitialTrials, check_same, create_study
from petra_optuna.study.lookup import load_study, specification_of
from petra_optuna.study.specification import Specification, TaskSource
from petra_optuna.study.stop import Stop, stop_of
from petra_optuna.study.storage import DEFAULT_URL, artifacts_folder, open_storage
from petra_optuna.study.warm_start import initial_from_study, origin_of, with_priors
from petra_optuna.study.worker_context import training_threads, worker_context
from petra_optuna.study.worker_processes import helpers, is_orphan
from petra_optuna.tasks import Mode, Task

Callback = Callable[[optuna.Study, FrozenTrial], None]
DEFAULT_CACHE = Path("storage/cache")
PETRA = PetraSampler.__name__
DEFAULT_POPULATION = 8
"""Five controls, five random pipelines, then evolution: a study of 24 trials must get to evolve."""


def optimize(
    task: Task,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    stop: Stop | None = None,
    storage: str = DEFAULT_URL,
    name: str | None = None,
    space: SearchSpace | None = None,
    budget: Budget | None = None,
    limits: Limits | None = None,
    rungs: Rungs | None = None,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    profile: DeviceProfile | None = None,
    seed: int = 0,
    population_size: int = DEFAULT_POPULATION,
    train_threads: int | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    source: TaskSource | None = None,
    mode: Mode = "pretrained",
    cache: Path = DEFAULT_CACHE,
    from_study: str | None = None,
    from_storage: str | None = None,
    sensitivity: bool = False,
    workers: int = 1,
    callbacks: Sequence[Callback] = (),
) -> optuna.Study:
    """Search for the Pareto front of deployable models of a task.

    A study of the same name and specification in the storage is continued.

    Args:
        task: The original model, its data and its metric.
        trials: Finished trials that the study shall have in the end, the controls included.
        timeout_s: Seconds after which no new trial starts.
        stop: All that may end the run, instead of ``trials`` and ``timeout_s``.
        storage: SQLAlchemy URL; artifacts go beside a SQLite file, else into ``storage/artifacts``.
        name: Study name; the task's name when None.
        space: Operations and lengths; all that the profile's runtime runs and up to five nodes when None.
        budget: Most training that one pipeline may spend.
        limits: Hard bounds on size, latency and what the metric may lose.
        rungs: When training pipelines are compared, and the weak ones trained no further; never when None.
        objectives: Names of ``EFFICIENCY_METRICS`` that count beside the task's metric; all are recorded.
        profile: What the files are made and measured for; ONNX Runtime on one CPU thread when None.
        seed: Of the sampler and of every node.
        population_size: Of the sampler.
        train_threads: Threads for training; the cores divided among the workers when None.
        sampler: Any Optuna sampler; ``PetraSampler`` when None.
        source: How the task can be built again by ``petra resume``; its name alone when None.
        mode: Where pipelines start: from the task's model, or (``untrained``) from initialisation, in which
            case their first node trains.
        cache: Folder of cached prefixes, shared between studies.
        from_study: Name of a study, of any task and device, whose front is run after the controls and
            whose operator credit begins the search's; None to start from nothing.
        from_storage: SQLAlchemy URL that it is stored at; ``storage`` when None.
        sensitivity: Whether the strengths of new nodes are mostly drawn near what the model was measured to
            bear, layer by layer, before the search.
        workers: Processes that run trials; more than one needs a ``source`` that they can build.
        callbacks: Called after each trial, as in Optuna.

    Returns:
        The study; ``petra_optuna.front(study)`` reads its front.

    Raises:
        UserError: When something given cannot be used.
    """
    stop = stop or Stop(trials, timeout_s)
    _check_workers(workers, sampler, space)
    if train_threads is not None and train_threads < 1:
        raise UserError(f"train_threads must be at least 1, got {train_threads}")
    task = task.in_mode(mode)
    if sensitivity and not task.trained:
        raise UserError("what layers bear cannot be measured on a model that nothing has trained")
    profile = profile or DeviceProfile()
    space = space or default_space(
        runtime=profile.runtime, device=profile.name, untrained=mode == "untrained"
    )
    space = _in_mode(space, mode)
    check_runs(space, profile.runtime, profile.name)
    origin = origin_of(name or task.name, storage, from_study, from_storage)
    specification = Specification.of(
        task,
        source or TaskSource(task.name),
        space=space,
        budget=budget or Budget(),
        limits=limits or Limits(),
        profile=profile,
        seed=seed,
        population_size=population_size,
        sampler=_named(sampler),
        train_threads=train_threads or max(1, available_cores() // workers),
        artifacts=None if storage.startswith("sqlite") else artifacts_folder(storage),
        cache=cache,
        rungs=rungs,
        objectives=objectives,
        from_study=origin,
        sensitivity=sensitivity,
    )

    def begin() -> InitialTrials:
        warm = (
            initial_from_study(origin, from_storage or storage, space, specification)
            if origin
            else InitialTrials()
        )
        return with_priors(warm, task, space, PrefixCache(cache)) if sensitivity else warm

    with training_threads(specification.train_threads):
        study = create_study(open_storage(storage), name or task.name, task, space, specification, begin)
        _continue(study, storage, task, space, stop, workers, sampler, callbacks)
    return study


def resume(
    task: Task,
    *,
    storage: str = DEFAULT_URL,
    name: str | None = None,
    trials: int | None = None,
    timeout_s: float | None = None,
    stop: Stop | None = None,
    space: SearchSpace | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    workers: int = 1,
    callbacks: Sequence[Callback] = (),
) -> optuna.Study:
    """Continue a stored study: trials of dead processes are run again first, then new ones.

    Arguments as in ``optimize``; the rest comes from the study, the end of the run too where none is given.
    Several processes may do this at once.

    Raises:
        UserError: When something given cannot be used.
    """
    study = load_study(open_storage(storage, must_exist=True), name)
    specification = specification_of(study)
    if stop is None and (trials, timeout_s) != (None, None):
        stop = Stop(trials, timeout_s)
    stop = stop_of(study, stop)
    _check_workers(workers, sampler, space)
    task = task.in_mode(specification.mode)
    space = _in_mode(space or stored_space(specification), specification.mode)
    made_with = (
        specification if sampler is None else dataclasses.replace(specification, sampler=_named(sampler))
    )
    check_same(study, dataclasses.replace(made_with, fingerprint=task.fingerprint, space=space.to_dict()))
    if sampler is None and specification.sampler != PETRA:
        raise StudyError(
            f"study {study.study_name!r} was made with {specification.sampler}, which is not stored; "
            "continue it from Python with petra_optuna.resume(task, sampler=...)"
        )
    with training_threads(specification.train_threads):
        _continue(study, storage, task, space, stop, workers, sampler, callbacks)
    return study


def stored_space(specification: Specification) -> SearchSpace:
    """The search space of a study whose operations are all built in.

    Raises:
        StudyError: When it has operations of the user's own; they must be given again.
    """
    known = {kind.name: kind for kind in EVERY_OPERATION}
    stored = specification.space
    names = (*stored["body"], *stored["conversions"])
    if missing := [name for name in names if name not in known]:
        raise StudyError(
            f"the study's space holds {', '.join(missing)}, not built in; "
            "continue it from Python with petra_optuna.resume(task, space=...)"
        )
    body, conversions = (tuple(known[name] for name in stored[part]) for part in ("body", "conversions"))
    return SearchSpace(body, conversions, stored["max_length"], stored.get("untrained", False))


def _in_mode(space: SearchSpace, mode: Mode) -> SearchSpace:
    """The space with the mode's rule of what a pipeline starts with."""
    if space.untrained and mode == "pretrained":
        raise UserError("the space is for pipelines that start from initialisation; give mode='untrained'")
    return dataclasses.replace(space, untrained=mode == "untrained")


def _named(sampler: optuna.samplers.BaseSampler | None) -> str:
    return PETRA if sampler is None else f"a {type(sampler).__name__} of your own"


def _check_workers(
    workers: int, sampler: optuna.samplers.BaseSampler | None, space: SearchSpace | None
) -> None:
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    own = space is not None and not set(space.operations) <= set(EVERY_OPERATION)
    if workers > 1 and (sampler is not None or own):
        raise UserError(
            "other processes cannot build a sampler or operations of your own; run one worker here and call "
            "petra_optuna.resume with them in processes of yours"
        )


def _continue(
    study: optuna.Study,
    storage: str,
    task: Task,
    space: SearchSpace,
    stop: Stop,
    workers: int,
    sampler: optuna.samplers.BaseSampler | None,
    callbacks: Sequence[Callback],
) -> None:
    specification = specification_of(study)
    study.set_user_attr(attributes.STOP, dataclasses.asdict(stop))
    study.sampler = sampler or PetraSampler(
        space, seed=specification.seed, population_size=specification.population_size
    )
    fail_orphans(study, is_orphan)
    rename_enqueued(study, space)
    if stop.is_reached(study):
        return
    with (
        helpers(study.study_name, storage, specification.task, workers - 1),
        worker_context(study, task, space) as objective,
        _storage_errors(),
    ):
        study.optimize(objective, timeout=stop.timeout_s, catch=(TrialError,), callbacks=[*callbacks, stop])


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """One line for a database that cannot be written, for example because its disk is full.

    Optuna fails an assertion of its own while such an error is on its way, and so hides it.
    """
    try:
        yield
    except (StorageInternalError, AssertionError) as error:
        hidden = error if isinstance(error, StorageInternalError) else error.__context__
        if not isinstance(hidden, StorageInternalError):
            raise
        raise StudyError(
            f"the database cannot be written ({one_line(hidden.__cause__ or hidden)}); "
            "make room or start its server, then `petra resume`"
        ) from hidden
