"""The built-in workloads by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from petra_optuna.edgetune.specification import TuningSpecification
from petra_optuna.edgetune.workload import Workload
from petra_optuna.edgetune.workloads import ic, nlp, od, sr
from petra_optuna.errors import TaskError


class WorkloadBuilder(Protocol):
    """Makes a built-in workload."""

    def __call__(self, *, data_root: Path | None, cache_dir: Path, seed: int) -> Workload:
        """Build the workload; the arguments are those of ``build_workload``."""


WORKLOADS: dict[str, WorkloadBuilder] = {
    "ic": ic.build,
    "nlp": nlp.build,
    "od": od.build,
    "sr": sr.build,
}


def build_workload(
    name: str,
    *,
    data_root: Path | None = None,
    cache_dir: Path = Path("storage/cache"),
    seed: int = 0,
) -> Workload:
    """Build the built-in workload of that name (EDGETUNE, section 5.1).

    Args:
        name: Name of the workload, a key of ``WORKLOADS``.
        data_root: Folder of the data, for workloads that need one.
        cache_dir: Folder in which downloaded and decoded data is kept.
        seed: Seed of the weights of the task's own network.

    Raises:
        TaskError: When the name is unknown.
        DataError: When the data cannot be used.

    Example:
        >>> words = build_workload("sr", data_root=Path("words"), cache_dir=Path("bases"))
        >>> words.model_space
        {'embedding': CategoricalDistribution(choices=(32, 64, 128))}
    """
    builder = WORKLOADS.get(name)
    if builder is None:
        raise TaskError(
            f"unknown workload {name!r}; known: {', '.join(WORKLOADS)}; or make your own `Workload`"
        )
    return builder(data_root=data_root, cache_dir=cache_dir, seed=seed)


def stored_workload(specification: TuningSpecification, data_root: Path | None, cache_dir: Path) -> Workload:
    """The built-in workload of a tuning study, with its data where it was or in ``data_root``.

    Raises:
        TaskError: When it is the user's own; only the program that made it can give it.
        DataError: When the data cannot be used.
    """
    source = specification.workload
    if source.name not in WORKLOADS:
        raise TaskError(
            f"the study's workload {source.name!r} is not built in; use it from Python, where "
            "petra_optuna.resume_tuning, export_tuned and edgetune.for_requests take it"
        )
    stored = None if source.data_root is None else Path(source.data_root)
    return build_workload(
        source.name, data_root=data_root or stored, cache_dir=cache_dir, seed=specification.seed
    )
