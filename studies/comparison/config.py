"""The configuration: a TOML file that names samplers and cases."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.errors import UserError
from studies.comparison.runs import Run
from studies.comparison.samplers import KINDS


@dataclasses.dataclass(frozen=True)
class SamplerChoice:
    """One sampler of the configuration.

    Attributes:
        kind, options: Arguments of ``build_sampler``.
        ms: (trials, milliseconds per trial), as measured; for the estimate only.
    """

    kind: str
    options: Mapping[str, Any]
    ms: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """Problems x samplers x seeds x workers.

    Attributes:
        problems: Names of the problems.
        samplers: Labels of the samplers.
        seeds: Seeds; each is one run.
        trials: Evaluations of a run.
        workers: Numbers of simulated workers.
        cost: Time of a sampler in this case as a share of its ``ms``; for the estimate only.
    """

    problems: tuple[str, ...]
    samplers: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: int
    workers: tuple[int, ...]
    cost: float


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration.

    Attributes:
        folder: Folder of the results.
        subject: Label of the sampler that the others are tested against.
        checkpoints: Numbers of evaluations after which fronts are judged.
        samplers: Samplers by label.
        cases: Runs to make.
    """

    folder: Path
    subject: str
    checkpoints: tuple[int, ...]
    samplers: Mapping[str, SamplerChoice]
    cases: tuple[Case, ...]

    def runs(self) -> list[Run]:
        """Every run once, one seed after the other."""
        runs = {
            (seed, case.trials, workers, problem, label): self._run(case, seed, workers, problem, label)
            for case in self.cases
            for seed, workers, problem, label in itertools.product(
                case.seeds, case.workers, case.problems, case.samplers
            )
        }
        return sorted(runs.values(), key=lambda run: run.seed)

    def _run(self, case: Case, seed: int, workers: int, problem: str, label: str) -> Run:
        choice = self.samplers[label]
        counts, ms = zip(*(choice.ms or ((1.0, 1.0),)), strict=True)
        return Run(
            problem=problem,
            sampler=label,
            kind=choice.kind,
            options=choice.options,
            seed=seed,
            workers=workers,
            trials=case.trials,
            checkpoints=tuple(count for count in self.checkpoints if count <= case.trials),
            expected_ms=case.cost * float(np.interp(case.trials, counts, ms)),
        )


def read_config(path: Path) -> Config:
    """Read and check the file.

    Raises:
        UserError: When it is missing, not TOML, or names what it does not define.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    try:
        samplers = {label: _sampler(dict(entry)) for label, entry in data["samplers"].items()}
        cases = tuple(_case(entry, tuple(samplers)) for entry in data["cases"])
        config = Config(Path(data["folder"]), data["subject"], tuple(data["checkpoints"]), samplers, cases)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} lacks {error}; the one beside studies/compare_samplers.py shows how"
        ) from error
    named = {config.subject, *(label for case in cases for label in case.samplers)}
    if unknown := named - set(samplers):
        raise UserError(f"{path} names samplers that it does not define: {', '.join(sorted(unknown))}")
    if odd := [choice.kind for choice in samplers.values() if choice.kind not in KINDS]:
        raise UserError(f"{path}: unknown kind of sampler {odd[0]!r}; there are {', '.join(KINDS)}")
    return config


def _sampler(entry: dict[str, Any]) -> SamplerChoice:
    kind, ms = entry.pop("kind"), entry.pop("ms", [])
    return SamplerChoice(kind, entry, tuple((float(count), float(value)) for count, value in ms))


def _case(entry: Mapping[str, Any], every: Sequence[str]) -> Case:
    first, count = entry.get("first_seed", 0), entry["seeds"]
    return Case(
        problems=tuple(entry["problems"]),
        samplers=tuple(entry.get("samplers", every)),
        seeds=tuple(range(first, first + count)),
        trials=entry["trials"],
        workers=tuple(entry.get("workers", [1])),
        cost=float(entry.get("cost", 1.0)),
    )
