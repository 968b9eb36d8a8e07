"""Running and resuming studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import optuna

from petra_optuna.aliases import TrainPrecision
from petra_optuna.database import (
    DEFAULT_URL,
    StorageLike,
    absolute_url,
    artifacts_folder,
    cache_folder,
    one_line_storage_errors,
    open_storage,
    storage_url,
)
from petra_optuna.errors import StudyError, UserError
from petra_optuna.evaluation import (
    DEFAULT_OBJECTIVES,
    Budget,
    Limits,
    PrefixCache,
    Rungs,
    priors_from_sensitivity,
    sensitivity_of,
)
from petra_optuna.measurement import DeviceProfile, available_cores
from petra_optuna.nn.training import training_threads
from petra_optuna.operations import EVERY_OPERATION, check_runs, default_space
from petra_optuna.pipeline import SearchSpace
from petra_optuna.samplers import PetraSampler, rename_enqueued, without_collection
from petra_optuna.study.applicable import applicable
from petra_optuna.study.create import InitialTrials, check_same, create_study
from petra_optuna.study.liveness import await_signs_of_life
from petra_optuna.study.lookup import load_study
from petra_optuna.study.record import StudyRecord
from petra_optuna.study.regression import gentle_priors
from petra_optuna.study.retake import Retake
from petra_optuna.study.specification import Specification, TaskSource
from petra_optuna.study.stop import Stop, stop_of
from petra_optuna.study.trial_loop import Callback, TrialLoop
from petra_optuna.study.warm_start import initial_from_study, origin_of
from petra_optuna.study.worker_context import worker_context
from petra_optuna.study.worker_processes import HelperCommand, check_source, running_helpers
from petra_optuna.tasks import Mode, Task

DEFAULT_CACHE = cache_folder(DEFAULT_URL)
"""Folder of cached models of what belongs to no study."""
PETRA = PetraSampler.__name__
_LARGEST_SEED = 2**63 - 1
DEFAULT_POPULATION = 8
"""Five controls, three random pipelines, then evolution: a study of 24 trials must get to evolve."""


def optimize(
    task: Task,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    stop: Stop | None = None,
    storage: StorageLike = DEFAULT_URL,
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
    train_precision: TrainPrecision = "auto",
    tune_inference: str | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    source: TaskSource | None = None,
    mode: Mode = "pretrained",
    cache: Path | None = None,
    from_study: str | None = None,
    from_storage: StorageLike | None = None,
    sensitivity: bool = False,
    region: float | None = None,
    workers: int = 1,
    callbacks: Sequence[Callback] = (),
) -> optuna.Study:
    """Search for the Pareto front of deployable models of a task.

    A study of the same name and specification in the storage is continued.

    Args:
        task: Task with the original model, its data and its metric.
        trials: Finished trials that the study shall have in the end, the controls included.
        timeout_s: Seconds after which no new trial starts.
        stop: All that may end the run, instead of ``trials`` and ``timeout_s``.
        storage: SQLAlchemy URL, path of a SQLite file, or ``RDBStorage``; artifacts go beside a SQLite file,
            else into ``storage/artifacts``.
        name: Study name; the task's name when None.
        space: Operations and lengths; all that the profile's runtime runs and up to five nodes when None.
            Structural operations that find nothing to change in the model are left out, and logged.
        budget: Most training that one pipeline may spend.
        limits: Hard bounds on loss of quality, size, latency and other measured values.
        rungs: Ladder of moments at which pipelines are compared in training; the weaker ones stop training
            there. None for no rungs.
        objectives: Names of ``EFFICIENCY_METRICS`` that are objectives beside the task's metric; what is not
            named is recorded too.
        profile: Device that the files are made and measured for; ONNX Runtime on one CPU thread when None.
        seed: Seed of the sampler and of all training, from 0 to 2^63 - 1.
        population_size: Pipelines that may become parents.
        train_threads: Threads for training; the cores divided among the workers when None.
        train_precision: Type in which forward passes of training run: ``auto`` for bfloat16 where the machine
            gains by it and one batch's outputs and gradients agree with float32, else float32.
        tune_inference: ``throughput``, ``latency``, ``energy`` or ``memory``: latency and throughput of each
            file are those of the batch size and threads that are best for it, with the profile's threads at
            most. None for the profile's own.
        sampler: Any Optuna sampler; ``PetraSampler`` when None.
        source: How another process can build the task again; by its name alone when None.
        mode: Where pipelines start: from the task's model (``pretrained``), or from initialisation
            (``untrained``), in which case their first node trains.
        cache: Folder of cached prefixes, shared between studies; beside a SQLite file when None, else
            ``storage/cache``.
        from_study: Name of a study to start from, of any task and device: its front runs after the
            controls, and its operators' credit comes first in the search's history. None to start from
            nothing.
        from_storage: That study's database, given as ``storage`` is; ``storage`` when None.
        sensitivity: Whether the strengths of new nodes are mostly drawn near what the model was measured to
            bear, layer by layer, before the search.
        region: Most that the task's metric may be worse than the baseline's, as a share of it, for a pipeline
            to count for the search and to be on the front; 1 for no such bound. When None 0.05 for a metric
            of values (``Metric.regression``), else 0.1.
        workers: Processes that run trials; more than one needs a ``source`` that they can build.
        callbacks: Called after each trial, as in Optuna.

    Returns:
        The study; ``petra_optuna.front(study)`` reads its front.

    Raises:
        UserError: When something given cannot be used.

    Example:
        >>> study = optimize(task, trials=1, storage="sqlite:///storage/study.db", budget=Budget(epochs=1))
        >>> study.metric_names
        ['accuracy', 'latency_ms', 'throughput_per_s', 'size_bytes']
    """
    url = absolute_url(storage_url(storage))
    from_url = None if from_storage is None else storage_url(from_storage, "from_storage")
    source = source or TaskSource(task.name)
    run = _Run(url, stop or Stop(trials, timeout_s), source, sampler, workers, tuple(callbacks), cache)
    run.check(space)
    cache = cache or cache_folder(url)
    if not 0 <= seed <= _LARGEST_SEED:
        raise UserError(f"`seed` must be from 0 to {_LARGEST_SEED}, got {seed}")
    if train_threads is not None and train_threads < 1:
        raise UserError(f"`train_threads` must be at least 1, got {train_threads}")
    task = task.in_mode(mode)
    if sensitivity and not task.trained:
        raise UserError("`sensitivity` needs a trained model: what its layers bear is measured on it")
    profile = profile or DeviceProfile()
    space = _space_for(profile, mode, space)
    name = name or task.name
    origin = origin_of(name, url, from_study, from_url)
    space = applicable(space, task)
    specification = Specification.of(
        task,
        source,
        space=space,
        budget=budget or Budget(),
        limits=limits or Limits(),
        profile=profile,
        seed=seed,
        population_size=population_size,
        sampler=_sampler_name(sampler),
        train_threads=train_threads or max(1, available_cores() // workers),
        artifacts=None if url.startswith("sqlite") else artifacts_folder(url),
        cache=cache,
        rungs=rungs,
        objectives=objectives,
        from_study=origin,
        sensitivity=sensitivity,
        region=region,
        train_precision=train_precision,
        tune_inference=tune_inference,
    )

    run.stop.check([objective for objective, _ in specification.objectives])

    def begin() -> InitialTrials:
        initial = InitialTrials()
        if origin:
            initial = initial_from_study(origin, from_url or url, space, specification)
        if sensitivity:
            curves = sensitivity_of(task, PrefixCache(cache))
            initial = dataclasses.replace(initial, priors=tuple(priors_from_sensitivity(curves, space)))
        if task.metric.regression:
            initial = dataclasses.replace(initial, priors=gentle_priors(space, initial.priors or ()))
        return initial

    with training_threads(specification.train_threads):
        study = create_study(open_storage(url), name, task, space, specification, begin)
        run.go_on(study, task, space)
    return study


def resume(
    task: Task,
    *,
    storage: StorageLike = DEFAULT_URL,
    name: str | None = None,
    trials: int | None = None,
    timeout_s: float | None = None,
    stop: Stop | None = None,
    space: SearchSpace | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    source: TaskSource | None = None,
    cache: Path | None = None,
    workers: int = 1,
    callbacks: Sequence[Callback] = (),
) -> optuna.Study:
    """Continue a stored study: trials of dead processes are run again first, then new ones.

    Arguments as in ``optimize``. What is not given comes from the study, and so does the end of the run.
    Several processes may do this at once.

    Raises:
        UserError: When something given cannot be used.

    Example:
        >>> study = resume(task, storage="sqlite:///storage/mine.db", name="mine", trials=6)
        >>> len(study.trials) >= 6
        True
    """
    url = absolute_url(storage_url(storage))
    study = load_study(open_storage(url, must_exist=True), name)
    specification = StudyRecord(study).specification
    if stop is None and (trials, timeout_s) != (None, None):
        stop = Stop(trials, timeout_s)
    source = source or TaskSource(task.name)
    run = _Run(url, stop_of(study, stop), source, sampler, workers, tuple(callbacks), cache)
    run.check(space)
    task = task.in_mode(specification.mode)
    given_space = stored_space(specification) if space is None else applicable(space, task)
    space = _in_mode(given_space, specification.mode)
    name_of_sampler = specification.sampler if sampler is None else _sampler_name(sampler)
    given = dataclasses.replace(
        specification, fingerprint=task.fingerprint, space=space.to_dict(), sampler=name_of_sampler
    )
    check_same(study, given)
    if sampler is None and specification.sampler != PETRA:
        raise StudyError(
            f"study {study.study_name!r} was made with {specification.sampler}, which is not stored; "
            "continue it from Python with petra_optuna.resume(task, sampler=...)"
        )
    with training_threads(specification.train_threads):
        run.go_on(study, task, space)
    return study


def stored_space(specification: Specification) -> SearchSpace:
    """The search space of a study whose operations are all built in.

    Raises:
        StudyError: When it has operations of the user's own; they must be given again.
    """
    built_in = {operation.name: operation for operation in EVERY_OPERATION}
    stored = specification.space
    names = (*stored["body"], *stored["conversions"])
    if missing := [name for name in names if name not in built_in]:
        raise StudyError(
            f"the study's space holds {', '.join(missing)}, not built in; "
            "continue it from Python with petra_optuna.resume(task, space=...)"
        )
    body, conversions = (tuple(built_in[name] for name in stored[part]) for part in ("body", "conversions"))
    return SearchSpace(body, conversions, stored["max_length"], stored.get("untrained", False))


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run of trials, of a new study or of a stored one.

    Attributes:
        storage: SQLAlchemy URL of the study's database, right in any working folder.
        stop: When the run ends.
        source: How another process can build the task again.
        sampler: Optuna sampler; ``PetraSampler`` when None.
        workers: Processes that run trials, this one included.
        callbacks: Called after each trial.
        cache: Folder of cached prefixes; that of the study when None.
    """

    storage: str
    stop: Stop
    source: TaskSource
    sampler: optuna.samplers.BaseSampler | None
    workers: int
    callbacks: tuple[Callback, ...]
    cache: Path | None

    def check(self, space: SearchSpace | None) -> None:
        """Refuse several workers where other processes cannot build what is given, or none at all.

        Raises:
            UserError: When there is no worker, or other processes cannot build task, sampler or space.
        """
        if self.workers < 1:
            raise UserError(f"`workers` must be at least 1, got {self.workers}")
        own_operations = space is not None and not set(space.operations) <= set(EVERY_OPERATION)
        if self.workers > 1 and (self.sampler is not None or own_operations):
            raise UserError(
                "other processes cannot build a sampler or operations of your own; run one worker here and "
                "call `resume` with them in processes of yours"
            )
        if self.workers > 1:
            check_source(self.source)

    def go_on(self, study: optuna.Study, task: Task, space: SearchSpace) -> None:
        """Run trials until the end of the run; those of dead processes are run again first."""
        record = StudyRecord(study)
        specification = record.specification
        if specification.tune_inference is not None and self.workers > 1:
            raise UserError(
                "`tune_inference` measures while nothing else runs, and other `workers` would train; give one"
            )
        self.stop.check(study.metric_names or ())
        record.store_stop(dataclasses.asdict(self.stop))
        study.sampler = self.sampler or PetraSampler(
            space, seed=specification.seed, population_size=specification.population_size
        )
        loop = TrialLoop(study, self.stop, self.callbacks)
        with without_collection():  # all trials are read here for the first time
            if loop.is_over():
                return
            await_signs_of_life(study)  # what is run again comes before what is new
            rename_enqueued(study, space)
        command = HelperCommand(study.study_name, self.storage, self.source, self.stop, self.cache)
        with (
            running_helpers(command, self.workers - 1) as helpers,
            worker_context(study, task, space, cache=self.cache) as objective,
            one_line_storage_errors(),
        ):
            if specification.tune_inference is None:
                retake = Retake(objective.evaluator, study)
                loop = dataclasses.replace(loop, callbacks=(*loop.callbacks, retake))
            loop.run(objective, helpers.wait)


def _space_for(profile: DeviceProfile, mode: Mode, given: SearchSpace | None) -> SearchSpace:
    """The space given, or the default one, with the mode's rule; the profile's runtime must run it."""
    default = given or default_space(
        runtime=profile.runtime, device=profile.name, untrained=mode == "untrained"
    )
    space = _in_mode(default, mode)
    check_runs(space, profile.runtime, profile.name)
    return space


def _in_mode(space: SearchSpace, mode: Mode) -> SearchSpace:
    """The space with the mode's rule of what a pipeline starts with."""
    if space.untrained and mode == "pretrained":
        raise UserError("the `space` is for pipelines that start from initialisation; give `mode` untrained")
    return dataclasses.replace(space, untrained=mode == "untrained")


def _sampler_name(sampler: optuna.samplers.BaseSampler | None) -> str:
    """How the specification names the sampler."""
    return PETRA if sampler is None else f"a {type(sampler).__name__} of your own"
