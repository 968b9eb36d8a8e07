"""How long samplers take to plan a trial, by the number of trials stored.

    python -m studies.benchmarks.sampler_overhead

Median milliseconds for one trial to be asked for and its whole pipeline suggested, on PipeBench in memory,
without the evaluation. Each sampler plans its own study from the start; TPE, at seconds a trial, is given
the trials that PetraSampler had by then.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from petra_optuna.pipebench import PipeBench
from petra_optuna.pipeline import suggest
from petra_optuna.samplers import BOUNDS, PetraSampler
from studies import script

STORED = (100, 1_000, 10_000)
LATEST = 100
"""Trials before each mark whose median is taken."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="medium", help="of PipeBench")
    parser.add_argument("--stored", type=int, nargs="+", default=STORED)
    parser.add_argument("--tpe-repeats", type=int, default=5, help="trials planned by TPE at each mark")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench, marks = PipeBench.variant(arguments.variant), sorted(arguments.stored)

    samplers: dict[str, BaseSampler] = {
        "random": RandomSampler(seed=0),
        "NSGA-II": NSGAIISampler(seed=0),
        "PetraSampler": PetraSampler(bench.space, seed=0),
    }
    studies = {name: _study(bench, sampler) for name, sampler in samplers.items()}
    medians = {name: [_grow(study, bench, mark) for mark in marks] for name, study in studies.items()}
    medians["TPE, multivariate, group"] = [
        _tpe(bench, studies["PetraSampler"], mark, arguments.tpe_repeats) for mark in marks
    ]
    print(_table(marks, medians))


def _study(bench: PipeBench, sampler: BaseSampler) -> optuna.Study:
    study = optuna.create_study(directions=bench.directions, sampler=sampler)
    study.set_user_attr(BOUNDS, bench.bounds)
    return study


def _grow(study: optuna.Study, bench: PipeBench, mark: int) -> float:
    """Run the study up to the mark; the median milliseconds of its last plans."""
    taken = []
    while len(study.get_trials(deepcopy=False)) < mark:
        taken.append(_plan_and_run(study, bench))
    return statistics.median(taken[-LATEST:])


def _tpe(bench: PipeBench, source: optuna.Study, stored: int, repeats: int) -> float:
    study = _study(bench, TPESampler(seed=0, multivariate=True, group=True))
    study.add_trials(source.get_trials(deepcopy=False)[:stored])
    return statistics.median(_plan_and_run(study, bench) for _ in range(repeats))


def _plan_and_run(study: optuna.Study, bench: PipeBench) -> float:
    start = time.perf_counter()
    trial = study.ask()
    pipeline = suggest(trial, bench.space)
    milliseconds = 1e3 * (time.perf_counter() - start)
    outcome = bench.evaluate(pipeline)
    for name, excess in outcome.constraints.items():
        trial.set_constraint(name, excess)
    study.tell(trial, outcome.values, TrialState.FAIL if outcome.values is None else TrialState.COMPLETE)
    return milliseconds


def _table(marks: Sequence[int], medians: dict[str, list[float]]) -> str:
    reference = medians["TPE, multivariate, group"]
    head = [f"{mark:,} stored | share of TPE's" for mark in marks]
    lines = [
        f"| ms to plan a trial | {' | '.join(head)} | last / first |",
        "|---" * (2 * len(marks) + 2) + "|",
    ]

    for name, row in medians.items():
        cells = " | ".join(
            f"{ours:.1f} | {ours / theirs:.4f}" for ours, theirs in zip(row, reference, strict=True)
        )
        lines.append(f"| {name} | {cells} | {row[-1] / row[0]:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    script.run(main)
