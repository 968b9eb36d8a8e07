"""PipeBench: an analytic surrogate of the search for compression pipelines.

It has what makes the real search hard: pipelines of variable length with conditional parameters, an
order that matters, training that brings loss back with diminishing returns, a floor at chance,
rounding that costs narrow networks more, devices that cannot run everything, trainings that diverge, and
evaluations that take from seconds to minutes. One evaluation takes microseconds and needs no torch.

The coefficients of low rank were fitted where each layer chose its rank alone, which is the local scope.
Those of the global scope were fitted to the digits' networks of three seeds, factored by each rule at eight
or nine strengths and not trained: the loss is a seventieth of that in the local scope.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import optuna

from petra_optuna.aliases import Direction
from petra_optuna.errors import OperationFailed, TrialError, UserError
from petra_optuna.evolution import Bounds, hypervolume, non_dominated
from petra_optuna.pipebench import coarse, network, operations
from petra_optuna.pipebench.coefficients import BASE, Coefficients, profile
from petra_optuna.pipebench.enumeration import enumerate_networks, is_enumerable
from petra_optuna.pipebench.network import Network, Setting
from petra_optuna.pipebench.outcome import Outcome
from petra_optuna.pipeline import Pipeline, SearchSpace, allot, suggest

DIRECTIONS: Mapping[str, Direction] = {
    "quality": "maximize",
    "latency_ms": "minimize",
    "size_bytes": "minimize",
}
NOISE = {"quality": 0.004, "latency_ms": 0.03}
"""Standard deviations at noise 1: of quality, and of the logarithm of the latency."""


@dataclasses.dataclass(frozen=True, eq=False)
class PipeBench:
    """One problem on which samplers are compared.

    Attributes:
        name: Name of the variant.
        space: Pipelines that may be searched.
        objectives: Names of the values: some of ``quality``, ``latency_ms`` and ``size_bytes``.
        coefficients: Numbers of the surrogate.
        epochs: Most epochs that a pipeline may spend; nodes are served in order.
        unsupported: Precisions of files that the device cannot run: a violated constraint.
        limits: Largest share of the original's value, by name of a value: a constraint as well.
        noise: Strength of the noise on quality and latency; 0 for none.
    """

    name: str
    space: SearchSpace
    objectives: tuple[str, ...]
    coefficients: Coefficients
    epochs: int = 6
    unsupported: tuple[str, ...] = ()
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    noise: float = 0.0

    @staticmethod
    def variant(name: str, noise: float = 0.0) -> PipeBench:
        """A variant by name; ``held_out`` is for the last comparison only.

        Raises:
            UserError: When there is none of that name.
        """
        if name not in VARIANTS:
            raise UserError(f"PipeBench has no variant {name!r}; it has {', '.join(VARIANTS)}")
        bench = _variant(name)
        return dataclasses.replace(bench, noise=noise) if noise else bench

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Direction of each objective."""
        return tuple(DIRECTIONS[name] for name in self.objectives)

    @functools.cached_property
    def enumerable(self) -> bool:
        """Whether the exact front can be had."""
        return is_enumerable(self.space)

    def without_noise(self) -> PipeBench:
        """The same problem, deterministic."""
        return dataclasses.replace(self, noise=0.0) if self.noise else self

    @property
    def bounds(self) -> dict[str, Any]:
        """Scale and reference point of the hypervolume, as ``PetraSampler`` reads it from a study."""
        return self._bounds.to_dict()

    def evaluate(self, pipeline: Pipeline, repeat: int = 0) -> Outcome:
        """Values, constraints and time of a pipeline.

        Args:
            pipeline: A pipeline of the space.
            repeat: Number of the evaluation, which draws its noise.
        """
        seconds = self.coefficients["seconds.fixed"]
        try:
            for state in self._run(pipeline):
                seconds = self.coefficients["seconds.fixed"] + state.seconds
        except TrialError as error:
            return Outcome(None, {}, seconds, f"{type(error).__name__}: {error}")
        return self.outcome(state, pipeline if self.noise else None, repeat)

    def states(self, pipeline: Pipeline) -> tuple[Network, ...]:
        """The original and what each node made of it; the last one is the file.

        Raises:
            TrialError: When a node cannot do its work.
        """
        return tuple(self._run(pipeline))

    def outcome(self, state: Network, pipeline: Pipeline | None = None, repeat: int = 0) -> Outcome:
        """Values and constraints of a file; with noise when the pipeline, whose hash seeds it, is given."""
        values = self._values(state)
        if pipeline is not None:
            values = self._noisy(values, [int(pipeline.hash[:16], 16), repeat])
        constraints = {name: values[name] / limit - 1 for name, limit in self._largest.items()}
        if self.unsupported:
            constraints["device"] = float(state.precision in self.unsupported)
        seconds = self.coefficients["seconds.fixed"] + state.seconds
        return Outcome(tuple(values[name] for name in self.objectives), constraints, seconds)

    def objective(self, trial: optuna.Trial) -> tuple[float, ...]:
        """An Optuna objective over the space; ``catch=(TrialError,)`` where trainings may diverge.

        Raises:
            OperationFailed: When the pipeline fails.
        """
        outcome = self.evaluate(suggest(trial, self.space))
        trial.set_user_attr("seconds", outcome.seconds)
        for name, excess in outcome.constraints.items():
            trial.set_constraint(name, excess)
        if outcome.values is None:
            raise OperationFailed(str(outcome.failure))
        return outcome.values

    def front(self) -> tuple[tuple[Pipeline, tuple[float, ...]], ...]:
        """The exact front: a shortest pipeline for each of its points, with its values. Found once.

        Raises:
            UserError: When the space is too large or has continuous fields.
        """
        return self._front

    def hypervolume(self, values: list[tuple[float, ...]]) -> float:
        """Volume that values dominate, in unit coordinates of ``bounds``: 1 for the original alone."""
        return hypervolume(values, self.directions, self._bounds) if values else 0.0

    @functools.cached_property
    def _bounds(self) -> Bounds:
        original = self._values(Network())
        values = tuple(original[name] for name in self.objectives)
        return Bounds(values, tuple(name != "quality" for name in self.objectives))

    def _run(self, pipeline: Pipeline) -> Iterator[Network]:
        nodes = pipeline.with_implied
        state = Network()
        yield state
        for node, epochs in zip(nodes, allot(nodes, self.epochs), strict=True):
            state = node.apply(state, Setting(self.coefficients, pipeline.recipe, epochs)).model
            yield state

    @functools.cached_property
    def _front(self) -> tuple[tuple[Pipeline, tuple[float, ...]], ...]:
        shortest: dict[tuple[float, ...], Pipeline] = {}
        for nodes, state in enumerate_networks(self.space, self.coefficients, self.epochs):
            outcome = self.outcome(state)
            if outcome.feasible and outcome.values is not None:
                shortest.setdefault(outcome.values, Pipeline(nodes))
        points = list(shortest.items())
        best = non_dominated([values for values, _ in points], self.directions)
        return tuple((points[index][1], points[index][0]) for index in best)

    @functools.cached_property
    def _largest(self) -> Mapping[str, float]:
        original = self._values(Network())
        return {name: share * original[name] for name, share in self.limits.items()}

    def _values(self, state: Network) -> dict[str, float]:
        values = {
            "quality": network.quality(state, self.coefficients),
            "latency_ms": network.latency_ms(state, self.coefficients),
            "size_bytes": network.size_bytes(state, self.coefficients),
        }
        # Pipelines that differ by the order of equal effects would else differ by rounding errors.
        return {name: float(f"{value:.9g}") for name, value in values.items()}

    def _noisy(self, values: Mapping[str, float], seed: list[int]) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        quality = values["quality"] + self.noise * NOISE["quality"] * float(rng.standard_normal())
        factor = math.exp(self.noise * NOISE["latency_ms"] * float(rng.standard_normal()))
        return {
            "quality": min(max(quality, self.coefficients["chance"]), 1.0),
            "latency_ms": values["latency_ms"] * factor,
            "size_bytes": values["size_bytes"],
        }


def full_space(max_length: int) -> SearchSpace:
    """The space of the real search in the default runtime: the same names, fields and ranges."""
    return SearchSpace(operations.BODY, operations.CONVERSIONS, max_length)


def _plain_space() -> SearchSpace:
    body = (operations.LowRank, operations.Prune, operations.Train, operations.QuantizeAware)
    conversions = (operations.QuantizeStatic, operations.QuantizeDynamic, operations.Half)
    return SearchSpace(body, conversions, 4)


VARIANTS = ("small", "medium", "large", "device", "held_out")
"""``small`` can be enumerated; ``large`` is as long as pipelines get; ``device`` has constraints."""


@functools.cache
def _variant(name: str) -> PipeBench:
    every = tuple(DIRECTIONS)
    if name == "small":
        space = SearchSpace(coarse.BODY, coarse.CONVERSIONS, 4)
        return PipeBench(name, space, ("quality", "latency_ms"), profile(BASE))
    if name == "medium":
        return PipeBench(name, _plain_space(), every, profile(BASE))
    if name == "large":
        return PipeBench(name, full_space(6), every, profile("wide"), epochs=10)
    if name == "device":
        return PipeBench(
            name,
            full_space(5),
            ("quality", "latency_ms"),
            profile("device"),
            unsupported=("fp16", "bf16"),
            limits={"size_bytes": 0.3},
        )
    return PipeBench(name, full_space(5), every, profile("compact"), epochs=8)
