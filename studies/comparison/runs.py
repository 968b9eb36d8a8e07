"""One run of a sampler on a problem, with workers that exist in simulated time only."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import heapq
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from petra_optuna import evolution, pipeline, samplers
from petra_optuna.evolution import minimised
from petra_optuna.pipebench import Outcome
from petra_optuna.samplers import BOUNDS
from studies.comparison.problems import Problem
from studies.comparison.samplers import OURS, build_sampler

CURVE_POINTS = 50


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sampler on a problem.

    Attributes:
        problem: Name of the problem.
        sampler: Label of the sampler in the tables.
        kind, options: Arguments of ``build_sampler``.
        seed: Seed of the sampler.
        workers: Trials that are evaluated at once.
        trials: Evaluations, failed ones included.
        checkpoints: Numbers of evaluations after which the front is judged.
        expected_ms: Milliseconds of a trial, for the estimate before any was measured.
    """

    problem: str
    sampler: str
    kind: str
    options: Mapping[str, Any]
    seed: int
    workers: int
    trials: int
    checkpoints: tuple[int, ...]
    expected_ms: float = 1.0

    def key(self, problem: Problem) -> str:
        """Equal for runs whose results are the same; for our samplers it depends on their source."""
        what = dataclasses.asdict(self) | {"version": problem.version}
        del what["sampler"], what["expected_ms"]
        if self.kind in OURS:
            what["source"] = own_source()
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def execute(run: Run, problem: Problem) -> dict[str, Any]:
    """Make one run.

    Returns:
        JSON-ready: what was run; ``volume``, ``igd_plus`` and ``area`` (mean volume so far) by checkpoint;
        ``curve``; ``duplicates``, ``failed`` and ``infeasible`` trials; ``ms_per_trial``, processor time of
        sampler and storage together; ``clock_s``, the simulated time.
    """
    sampler = build_sampler(run.kind, run.options, problem.space, run.seed)
    study = optuna.create_study(directions=problem.directions, sampler=sampler)
    if problem.bounds is not None:
        study.set_user_attr(BOUNDS, problem.bounds)
    watch, judge = Stopwatch(), Judge(problem, run.checkpoints)
    running: list[tuple[float, int, optuna.Trial, Any, Outcome]] = []
    clock, asked = 0.0, 0
    while judge.count < run.trials:
        while asked < run.trials and len(running) < run.workers:
            with watch:
                trial = study.ask()
                candidate = problem.suggest(trial)
            outcome = problem.evaluate(candidate)
            for name, excess in outcome.constraints.items():
                trial.set_constraint(name, excess)
            heapq.heappush(running, (clock + outcome.seconds, asked, trial, candidate, outcome))
            asked += 1
        clock, _, trial, candidate, outcome = heapq.heappop(running)
        state = TrialState.FAIL if outcome.values is None else TrialState.COMPLETE
        with watch:
            study.tell(trial, outcome.values, state=state)
        judge.add(candidate, outcome)
    shown = np.unique(np.linspace(1, run.trials, min(CURVE_POINTS, run.trials)).round().astype(int))
    return {
        **dataclasses.asdict(run),
        **judge.results(),
        "curve": [[int(count), round(judge.volumes[count - 1], 5)] for count in shown],
        "ms_per_trial": 1000 * watch.seconds / run.trials,
        "clock_s": clock,
    }


class Judge:
    """Keeps the front of the evaluations so far, and judges it."""

    def __init__(self, problem: Problem, checkpoints: tuple[int, ...]) -> None:
        self.volumes: list[float] = []
        self._problem = problem
        self._checkpoints = checkpoints
        self._front: dict[tuple[float, ...], tuple[float, ...]] = {}
        self._keys: set[str] = set()
        self._counts = {"duplicates": 0, "failed": 0, "infeasible": 0}
        self._at: dict[str, dict[str, float]] = {"volume": {}, "igd_plus": {}, "area": {}}

    @property
    def count(self) -> int:
        """Evaluations so far."""
        return len(self.volumes)

    def add(self, candidate: Any, outcome: Outcome) -> None:
        """Take one more evaluation into account."""
        key = self._problem.key(candidate)
        self._counts["duplicates"] += key in self._keys
        self._counts["failed"] += outcome.values is None
        self._keys.add(key)
        real = self._problem.truth(candidate, outcome)
        self._counts["infeasible"] += real.values is not None and not real.feasible
        entered = real.feasible and real.values is not None and self._enter(real.values)
        before = self.volumes[-1] if self.volumes else 0.0
        self.volumes.append(self._problem.volume(list(self._front.values())) if entered else before)
        if self.count in self._checkpoints:
            name, front = str(self.count), list(self._front.values())
            self._at["volume"][name] = self.volumes[-1]
            self._at["area"][name] = float(np.mean(self.volumes))
            self._at["igd_plus"][name] = self._problem.distance(front)

    def results(self) -> dict[str, Any]:
        """Measures by checkpoint, and the counts of trials."""
        return {**self._at, **self._counts}

    def _enter(self, values: tuple[float, ...]) -> bool:
        point = tuple(float(value) for value in minimised(values, self._problem.directions)[0])
        if any(_covers(other, point) for other in self._front):
            return False
        self._front = {other: kept for other, kept in self._front.items() if not _covers(point, other)}
        self._front[point] = values
        return True


class Stopwatch:
    """Adds up the processor time inside its ``with`` blocks, which a busy machine does not lengthen much."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._began


@functools.cache
def own_source() -> str:
    """SHA-256 of everything that our samplers are made of."""
    digest = hashlib.sha256()
    for package in (pipeline, evolution, samplers):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _covers(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return all(one <= other for one, other in zip(first, second, strict=True))
