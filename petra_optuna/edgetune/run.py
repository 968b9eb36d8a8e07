"""One run of trials of a tuning study: its sampler, its inference server, and the cores of each."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner

from petra_optuna.database import artifacts_folder, one_line_storage_errors, open_storage
from petra_optuna.edgetune.objective import TuningObjective
from petra_optuna.edgetune.record import KeptCounts
from petra_optuna.edgetune.space import most_threads
from petra_optuna.edgetune.specification import TuningSpecification
from petra_optuna.edgetune.target import TARGET, TargetQuality
from petra_optuna.edgetune.trial import TuningTrial
from petra_optuna.edgetune.workload import Workload
from petra_optuna.errors import UserError
from petra_optuna.inference import InferenceServer, InferenceTuner, Pause, inference_objective, serving_cores
from petra_optuna.measurement import Counter, counter_named
from petra_optuna.samplers import algorithm, sampler_of
from petra_optuna.scratch import scratch_folder
from petra_optuna.study import Callback, Stop, StudyRecord, TrialLoop


@dataclasses.dataclass(frozen=True)
class TuningRun:
    """One run of trials, of a new study or of a stored one.

    Attributes:
        workload: What is tuned.
        specification: Specification of the study.
        objective: Value of a trial.
        url: URL of the database, right in any working folder.
        stop: When the run ends.
    """

    workload: Workload
    specification: TuningSpecification
    objective: TuningObjective
    url: str
    stop: Stop

    def go_on(self, study: optuna.Study, callbacks: Sequence[Callback], target: float | None) -> None:
        """Run trials until the end of the run; those of dead processes are run again first."""
        specification = self.specification
        ends: list[Callback] = list(callbacks)
        StudyRecord(study).store_stop(dataclasses.asdict(self.stop))
        study.set_user_attr(TARGET, target)
        if target is not None:
            rule = TargetQuality(target, self.workload.task.metric.direction)
            if rule.is_reached(study):
                return
            ends.append(rule)
        study.sampler = sampler_of(
            specification.algorithm,
            specification.groups_in(specification.space),
            specification.space,
            specification.seed,
            len(study.trials),
        )
        study.pruner = _pruner(specification)
        with one_line_storage_errors(), self._trial() as trial:
            if trial.server is not None:
                ends.insert(0, KeptCounts(trial.server.counts))
            TrialLoop(study, self.stop, ends).run(trial)

    @contextlib.contextmanager
    def _trial(self) -> Iterator[TuningTrial]:
        """The study's objective with a scratch folder and an inference server of its own."""
        specification = self.specification
        counter = counter_of(specification, self.objective)
        store_folder = artifacts_folder(self.url)
        store_folder.mkdir(parents=True, exist_ok=True)
        threads = most_threads(specification.space, specification.train_threads)
        cores = serving_cores(specification.device, threads)
        pause = Pause()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(scratch_folder("tuning")))
            server = None
            if specification.inference_objective is not None:
                server = stack.enter_context(InferenceServer(self._tuner(cores), self.url, pause))
                stack.enter_context(_kept_from(cores))
            store = FileSystemArtifactStore(str(store_folder))
            yield TuningTrial(
                self.workload, specification, self.objective, store, folder, server, pause, counter
            )

    def _tuner(self, cores: tuple[int, ...]) -> InferenceTuner:
        specification = self.specification
        assert specification.inference_objective is not None
        tuner = InferenceTuner(
            storage=open_storage(self.url),
            device=specification.device,
            cores=cores,
            objective=inference_objective(specification.inference_objective),
            max_batch=specification.max_batch,
            algorithm=specification.inference_algorithm,
            seed=specification.seed,
            energy=specification.energy,
        )
        return dataclasses.replace(tuner, groups=specification.groups_in(tuner.space.parameters))


def counter_of(specification: TuningSpecification, objective: TuningObjective) -> Counter | None:
    """What counts or estimates the energy of training; None where nothing needs it.

    Raises:
        UserError: When energy is an objective and nothing counts it, or that of serving is left out.
    """
    serving = specification.inference_objective
    needing = [f"objective {objective.name!r}"] if objective.needs_energy else []
    needing += [f"limit {limit}" for limit in specification.limits if limit.figure == "inference_j"]
    if needing and serving not in ("energy", None):
        raise UserError(
            f"{needing[0]} counts the energy of serving too, which is measured only where "
            "settings are tuned for it; give `inference_objective` energy, or none for training alone"
        )
    bounded = any(limit.needs_energy for limit in specification.limits)
    if not (objective.needs_energy or bounded or serving == "energy"):
        return None
    counter = counter_named(specification.energy)
    if isinstance(counter, str):
        raise UserError(
            f"energy cannot be an objective here: {counter}; name an estimator, for example "
            "`energy_estimator` cpu-time:6"
        )
    return counter


@contextlib.contextmanager
def _kept_from(cores: tuple[int, ...]) -> Iterator[None]:
    """Keep this process, which trains, from the cores that serve, where others are left."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    _keep_threads_to((before - set(cores)) or before)
    try:
        yield
    finally:
        _keep_threads_to(before)


def _keep_threads_to(cores: set[int]) -> None:
    """Keep all threads to these cores: those with which PyTorch computed before do not follow this one."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), cores)


def _pruner(specification: TuningSpecification) -> BasePruner:
    if not algorithm(specification.algorithm).early_stopping:
        return NopPruner()
    budget = specification.budget
    return HyperbandPruner(min_resource=1, max_resource=budget.last, reduction_factor=budget.reduction_factor)
