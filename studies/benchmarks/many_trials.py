"""Print what a study of many trials costs: seconds to read its front and to resume it, milliseconds to plan.

    python -m studies.benchmarks.many_trials --trials 10000

A study of the digits runs its controls; then trials with the records of these, random pipelines and random
values are added until it has so many. ``front`` is all that the command does, ``resume`` all up to the first
new trial, both without imports. Planning is timed on PipeBench's pipelines with four objectives whose random
values put nearly all trials on the front, in seconds of the processor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from petra_optuna.cli import app
from petra_optuna.evaluation import Budget
from petra_optuna.evolution import random_pipeline
from petra_optuna.pipebench import PipeBench
from petra_optuna.pipeline import SearchSpace, distributions, encode, suggest
from petra_optuna.samplers import BOUNDS, SHAPE, PetraSampler
from petra_optuna.study import StudyRecord, optimize
from petra_optuna.study.run import stored_space
from petra_optuna.study.trial_record import EVALUATION
from petra_optuna.tasks import build_task
from studies import script

CONTROLS = 5
PLANS = 30
BATCH = 500


def main() -> None:
    """Make the study and print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        url = _make(given.trials, Path(name))
        where = ["--storage", url, "--study", "digits"]
        front_s = _seconds(["front", *where])
        resume_s = _seconds(["resume", *where, "--trials", str(given.trials), "--quiet"])
    rows = [
        ["petra front, s", f"{front_s:.1f}"],
        ["petra resume, s", f"{resume_s:.1f}"],
        ["a plan in a crowd of 4 objectives, ms of CPU", f"{_plan_ms(given.trials):.1f}"],
    ]
    script.print_table((f"{given.trials:,} trials", "cost"), rows)


def _make(trials: int, folder: Path) -> str:
    """A study with so many finished trials; the URL of its database."""
    url, cache = f"sqlite:///{folder}/study.db", folder / "cache"
    study = optimize(
        build_task("digits", cache_dir=cache),
        trials=CONTROLS,
        storage=url,
        name="digits",
        budget=Budget(epochs=1, data_fraction=0.1),
        cache=cache,
        train_threads=1,
    )
    copies = _Copies(study.trials, stored_space(StudyRecord(study).specification))
    made = list(copies.draw(trials - CONTROLS))
    for start in range(0, len(made), BATCH):
        study.add_trials(made[start : start + BATCH])
    return url


@dataclasses.dataclass(frozen=True)
class _Copies:
    """Draws trials of random pipelines with the records of some that were run."""

    originals: list[FrozenTrial]
    space: SearchSpace

    def draw(self, count: int) -> Iterator[FrozenTrial]:
        rng = np.random.default_rng(0)
        for index in range(count):
            yield self._copy(self.originals[index % len(self.originals)], index, rng)

    def _copy(self, original: FrozenTrial, index: int, rng: np.random.Generator) -> FrozenTrial:
        pipeline = random_pipeline(self.space, 1 + index % self.space.max_length, rng)
        params = encode(pipeline, self.space)
        quality, latency, throughput, size = original.values * np.exp(rng.normal(0, 0.4, size=4))
        shape = {
            "shape": f"shape {index % (0.6 * (index + 1)):.0f}",
            "readings": {f"reading {index}": {"latency_ms": [latency, 0.005]}},
        }
        evaluation = original.user_attrs[EVALUATION] | {
            "description": pipeline.describe(),
            "hash": pipeline.hash,
            "pipeline": pipeline.to_dict(),
        }
        attributes: dict[str, Any] = {**original.user_attrs, SHAPE: shape, EVALUATION: evaluation}
        plan = {"index": CONTROLS + index, "params": params, "operator": "local", "hash": pipeline.hash}
        return create_trial(
            state=TrialState.COMPLETE,
            values=[min(quality, 1.0), latency, throughput, size],
            params=params,
            distributions=distributions(params, self.space),
            user_attrs=attributes,
            system_attrs={"petra:plan": plan},
        )


def _seconds(arguments: list[str]) -> float:
    """Seconds of a command in this process, which has imported what it needs."""
    with contextlib.redirect_stdout(io.StringIO()):
        return script.seconds_of(lambda: app(args=arguments, standalone_mode=False))


def _plan_ms(trials: int) -> float:
    """Median milliseconds of the processor for a plan where nearly all trials are on the front."""
    bench, rng = PipeBench.variant("medium"), np.random.default_rng(0)
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * 3]
    study = optuna.create_study(directions=directions, sampler=RandomSampler(seed=0))
    study.set_user_attr(BOUNDS, {"reference": [1.0, 100.0, 100.0, 100.0], "log": [False, True, True, True]})

    def run() -> float:
        began = time.process_time()
        trial = study.ask()
        suggest(trial, bench.space)
        seconds = time.process_time() - began
        shares = rng.dirichlet(np.ones(4))
        study.tell(trial, (1 - 0.1 * shares[0], *(100 * 1.25 ** (3 * shares[1:] - 3))))
        return 1e3 * seconds

    for _ in range(trials):
        run()
    study.sampler = PetraSampler(bench.space, seed=0)
    run()
    return statistics.median(run() for _ in range(PLANS))


if __name__ == "__main__":
    script.run(main)
