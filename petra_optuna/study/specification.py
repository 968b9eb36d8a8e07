"""What a study is: everything that must stay the same for its trials to be comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from petra_optuna.aliases import Direction
from petra_optuna.errors import StudyError, UserError
from petra_optuna.evaluation import DEFAULT_OBJECTIVES, Budget, Limits, Rungs, efficiency_metric
from petra_optuna.measurement import DeviceProfile
from petra_optuna.pipeline import SearchSpace
from petra_optuna.tasks import Mode, Task

VERSION = 1


@dataclasses.dataclass(frozen=True)
class TaskSource:
    """How a task can be built again.

    Attributes:
        name: A built-in task's name, or ``module:callable`` of the user's, or the name of a task
            that only the user's own code can give.
        data_root: Folder of the data, absolute, or None.
        checkpoint: File with the original's weights, absolute, or None.
    """

    name: str
    data_root: str | None = None
    checkpoint: str | None = None

    @classmethod
    def of(cls, name: str, data_root: Path | None = None, checkpoint: Path | None = None) -> TaskSource:
        """Source with absolute paths, so that a study resumes from any folder."""
        return cls(
            name,
            str(data_root.resolve()) if data_root else None,
            str(checkpoint.resolve()) if checkpoint else None,
        )


@dataclasses.dataclass(frozen=True)
class Origin:
    """The study that another one was started from.

    Attributes:
        study: Its name.
        storage: Where it is stored, without a password; None for the same database, which may be moved.
    """

    study: str
    storage: str | None


@dataclasses.dataclass(frozen=True)
class Specification:
    """Stored in the study; a run with another specification under the same name is refused.

    ``quantities`` are the objectives beside the task's metric. ``artifacts`` is None where they live beside a
    SQLite file, so that both can be moved together.
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
    quantities: tuple[str, ...] = DEFAULT_OBJECTIVES
    mode: Mode = "pretrained"
    from_study: Origin | None = None
    sensitivity: bool = False

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
    ) -> Specification:
        """Specification of a study over a task.

        Raises:
            UserError: When ``objectives`` is empty, or names one twice or one that is not known.
        """
        names = [efficiency_metric(name).name for name in objectives]
        if not names or len(set(names)) < len(names):
            given = ", ".join(names) or "none"
            raise UserError(f"objectives beside {task.metric.name}: one or more, each once; got {given}")
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
            quantities=tuple(names),
            mode=task.mode,
            from_study=from_study,
            sensitivity=sensitivity,
        )

    @property
    def objectives(self) -> tuple[tuple[str, str], ...]:
        """Names and directions of the values, in the order of ``trial.values``; the metric is the first."""
        others = tuple((name, efficiency_metric(name).direction) for name in self.quantities)
        return ((self.metric, self.direction), *others)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; ``from_dict`` is its inverse."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Specification:
        """Inverse of ``to_dict``.

        Raises:
            StudyError: When it was written by another version.
        """
        if data.get("version") != VERSION:
            raise StudyError(
                f"the study's specification has version {data.get('version')}, this release reads {VERSION}; "
                "use the release that made the study"
            )
        fields = {key: value for key, value in data.items() if key != "version"}
        return cls(
            **{
                **fields,
                "task": TaskSource(**fields["task"]),
                "budget": Budget(**fields["budget"]),
                "limits": Limits(**fields["limits"]),
                "rungs": Rungs(**{"levels": None, **fields["rungs"]}) if fields.get("rungs") else None,
                "from_study": Origin(**fields["from_study"]) if fields.get("from_study") else None,
                "profile": DeviceProfile.from_dict(fields["profile"]),
                "quantities": tuple(fields.get("quantities", DEFAULT_OBJECTIVES)),
            }
        )

    def differences(self, other: Specification) -> tuple[str, ...]:
        """Where two specifications disagree, ``name: this != other``; paths of caches do not count."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        compared = [name for name in mine if name not in ("artifacts", "cache", "task")]
        found = [line for name in compared for line in _apart(name, mine[name], theirs[name])]
        if self.task.name != other.task.name:
            found.insert(0, f"task: {self.task.name} != {other.task.name}")
        return tuple(found)


def _apart(name: str, mine: Any, theirs: Any) -> list[str]:
    """Where two JSON-ready values disagree; of records only the fields that do."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [
            line
            for key in {**mine, **theirs}
            for line in _apart(f"{name}.{key}", mine.get(key), theirs.get(key))
        ]
    return [] if mine == theirs else [f"{name}: {mine} != {theirs}"]
