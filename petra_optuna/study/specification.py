"""What a study is made with: everything that must stay the same for its trials to be comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from petra_optuna.aliases import Direction, TrainPrecision
from petra_optuna.errors import StudyError, UserError, foreign_errors_as
from petra_optuna.evaluation import DEFAULT_OBJECTIVES, Budget, Limits, Rungs, efficiency_metric
from petra_optuna.inference import inference_objective
from petra_optuna.measurement import DeviceProfile
from petra_optuna.pipeline import SearchSpace
from petra_optuna.study.regression import DEFAULT_REGION, default_region
from petra_optuna.tasks import Mode, Task

VERSION = 1
NO_REGION = 1.0
"""The region that is searched everywhere."""


@dataclasses.dataclass(frozen=True)
class TaskSource:
    """How another process can build a study's task again.

    Attributes:
        name: Name of a built-in task, ``module:callable`` of the user's code, or the name of a task that only
            the program that made it can give.
        data_root: Absolute path of the data's folder; None where the task needs none.
        checkpoint: Absolute path of the original's weights; None where the task makes them itself.

    Example:
        >>> TaskSource.of("cifar10", data_root=Path("data")).name
        'cifar10'
    """

    name: str
    data_root: str | None = None
    checkpoint: str | None = None

    @classmethod
    def of(cls, name: str, data_root: Path | None = None, checkpoint: Path | None = None) -> TaskSource:
        """A source with absolute paths, so that a study resumes from any folder."""
        return cls(
            name,
            str(data_root.resolve()) if data_root else None,
            str(checkpoint.resolve()) if checkpoint else None,
        )


@dataclasses.dataclass(frozen=True)
class Origin:
    """The study that another one was started from.

    Attributes:
        study: Name of the study.
        storage: URL of its database without a password; None for the database of the new study, which may be
            moved.
    """

    study: str
    storage: str | None


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What a study took over from the study that it was started from.

    Attributes:
        study: Name of the other study.
        trials: Numbers of its trials whose pipelines were enqueued after the controls, in that order.
        credit: Number of mutations whose credit begins the success history.
        known: Pipelines of its front that were left out as controls, or as repetitions of another one.
        beyond: Pipelines that were left out because a population has no more room.
        foreign: Pipelines that were left out because the new space cannot express them.
        reason: Why the first of the foreign ones was; None where there is none.
    """

    study: str
    trials: tuple[int, ...]
    credit: int
    known: int = 0
    beyond: int = 0
    foreign: int = 0
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WarmStart:
        """Inverse of ``to_dict``."""
        return cls(**{**data, "trials": tuple(data["trials"])})


@dataclasses.dataclass(frozen=True)
class Specification:
    """What a study is made with; a run with another specification under the same name is refused.

    Attributes:
        task: How the task is built again.
        fingerprint: SHA-256 of the task (``Task.fingerprint``).
        metric, direction: Name of the task's metric, and whether more of it is better.
        space: Search space (``SearchSpace.to_dict``).
        budget, limits, profile: What one pipeline may spend, what its file may need, and on which device.
        seed: Seed of the sampler and of all training.
        population_size: Pipelines that may become parents.
        sampler: Name of the sampler's class.
        train_threads: Threads for training.
        artifacts: Absolute path of the artifacts' folder; None where they live beside a SQLite file, so that
            both can be moved together.
        cache: Path of the folder of cached prefixes. It is stored relative to the folder of a SQLite file
            where it lies in there, so that both can be moved together, and is absolute otherwise.
        rungs: When pipelines are compared in training; None for never.
        efficiency_metrics: Names of the objectives beside the task's metric; stored as ``quantities``.
        mode: Where pipelines start.
        from_study: Study that this one was started from; None where there is none.
        sensitivity: Whether fields of new nodes are mostly drawn near what the model was measured to bear.
        region: Most that quality may be worse than the baseline's, as a share of it, for a pipeline to count.
        train_precision: Type in which forward passes of training run.
        tune_inference: What the serving of each file is tuned for; None for the profile's fixed settings.
    """

    task: TaskSource
    fingerprint: str
    metric: str
    direction: Direction
    space: dict[str, Any]
    budget: Budget
    limits: Limits
    profile: DeviceProfile
    seed: int
    population_size: int
    sampler: str
    train_threads: int
    artifacts: str | None
    cache: str
    rungs: Rungs | None = None
    efficiency_metrics: tuple[str, ...] = DEFAULT_OBJECTIVES
    mode: Mode = "pretrained"
    from_study: Origin | None = None
    sensitivity: bool = False
    region: float = DEFAULT_REGION
    train_precision: TrainPrecision = "auto"
    tune_inference: str | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        source: TaskSource,
        *,
        space: SearchSpace,
        budget: Budget,
        limits: Limits,
        profile: DeviceProfile,
        seed: int,
        population_size: int,
        sampler: str,
        train_threads: int,
        artifacts: Path | None,
        cache: Path,
        rungs: Rungs | None = None,
        objectives: Sequence[str] = DEFAULT_OBJECTIVES,
        from_study: Origin | None = None,
        sensitivity: bool = False,
        region: float | None = None,
        train_precision: TrainPrecision = "auto",
        tune_inference: str | None = None,
    ) -> Specification:
        """Specification of a study over a task.

        Raises:
            UserError: When ``objectives`` is empty, or names one twice or one that is not known, when
                ``region`` is not a share, or when ``train_precision`` is not known.
        """
        if train_precision not in get_args(TrainPrecision):
            known = ", ".join(get_args(TrainPrecision))
            raise UserError(f"`train_precision` must be one of {known}, got {train_precision!r}")
        if tune_inference is not None:
            inference_objective(tune_inference)
        region = default_region(task.metric) if region is None else region
        if not 0 < region <= NO_REGION:
            raise UserError(f"`region` must be above 0 and at most 1, which is for none; got {region:g}")
        names = [efficiency_metric(name).name for name in objectives]
        if not names or len(set(names)) < len(names):
            given = ", ".join(names) or "none"
            raise UserError(
                f"`objectives` must name one or more, each once, besides {task.metric.name}; got {given}"
            )
        return cls(
            task=source,
            fingerprint=task.fingerprint,
            metric=task.metric.name,
            direction=task.metric.direction,
            space=space.to_dict(),
            budget=budget,
            limits=limits,
            profile=profile,
            seed=seed,
            population_size=population_size,
            sampler=sampler,
            train_threads=train_threads,
            artifacts=str(artifacts.resolve()) if artifacts else None,
            cache=str(cache.resolve()),
            rungs=rungs,
            efficiency_metrics=tuple(names),
            mode=task.mode,
            from_study=from_study,
            sensitivity=sensitivity,
            region=region,
            train_precision=train_precision,
            tune_inference=tune_inference,
        )

    @property
    def objectives(self) -> tuple[tuple[str, str], ...]:
        """Names and directions of the values, in the order of ``trial.values``; the metric is the first."""
        others = tuple((name, efficiency_metric(name).direction) for name in self.efficiency_metrics)
        return ((self.metric, self.direction), *others)

    def movable_with(self, folder: Path | None) -> Specification:
        """The specification with the cache relative to the folder of its SQLite file, if it lies in there."""
        if folder is None or not Path(self.cache).is_relative_to(folder.resolve()):
            return self
        return dataclasses.replace(self, cache=str(Path(self.cache).relative_to(folder.resolve())))

    def beside(self, folder: Path | None) -> Specification:
        """Inverse of ``movable_with``, in whatever folder the SQLite file is now."""
        if folder is None:
            return self
        return dataclasses.replace(self, cache=str(folder.resolve() / self.cache))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        fields = dataclasses.asdict(self)
        fields["quantities"] = fields.pop("efficiency_metrics")
        return {"version": VERSION, **fields}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Specification:
        """Inverse of ``to_dict``.

        Raises:
            StudyError: When it was written by another version, or a newer release of this one.
        """
        if data.get("version") != VERSION:
            raise StudyError(
                f"the study's specification has version {data.get('version')}, this release reads {VERSION}; "
                "use the release that made the study"
            )
        fields = {key: value for key, value in data.items() if key != "version"}
        efficiency_metrics = tuple(fields.pop("quantities", DEFAULT_OBJECTIVES))
        with foreign_errors_as(StudyError, "the study's specification cannot be read by this release"):
            return cls._of_fields(fields, efficiency_metrics)

    @classmethod
    def _of_fields(cls, fields: dict[str, Any], efficiency_metrics: tuple[str, ...]) -> Specification:
        return cls(
            **{
                **fields,
                "task": TaskSource(**fields["task"]),
                "budget": Budget(**fields["budget"]),
                "limits": Limits(**fields["limits"]),
                "rungs": Rungs(**{"levels": None, **fields["rungs"]}) if fields.get("rungs") else None,
                "from_study": Origin(**fields["from_study"]) if fields.get("from_study") else None,
                "profile": DeviceProfile.from_dict(fields["profile"]),
                "efficiency_metrics": efficiency_metrics,
            }
        )

    def differences(self, other: Specification) -> tuple[str, ...]:
        """Where two specifications disagree, ``name: this != other``; paths of caches do not count."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        compared = [name for name in mine if name not in ("artifacts", "cache", "task")]
        lines = [line for name in compared for line in _differences(name, mine[name], theirs[name])]
        if self.task.name != other.task.name:
            lines.insert(0, f"task: {self.task.name} != {other.task.name}")
        return tuple(lines)


def _differences(name: str, mine: Any, theirs: Any) -> list[str]:
    """Where two JSON-ready values disagree; for records, the fields that do."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [
            line
            for key in {**mine, **theirs}
            for line in _differences(f"{name}.{key}", mine.get(key), theirs.get(key))
        ]
    return [] if mine == theirs else [f"{name}: {mine} != {theirs}"]
