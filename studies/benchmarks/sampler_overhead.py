"""Print how many milliseconds samplers take to plan a trial, by the number of trials stored.

    python -m studies.benchmarks.sampler_overhead

Median milliseconds for one trial to be asked for and its whole pipeline suggested, on PipeBench in memory,
without the evaluation. Each sampler plans its own study from the start; TPE, which takes seconds for a trial,
is given the trials that PetraSampler had by then.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from petra_optuna.pipebench import PipeBench
from petra_optuna.pipeline import suggest
from petra_optuna.samplers import BOUNDS, PetraSampler
from studies import script

TPE = "TPE, multivariate, group"
STORED = (100, 1_000, 10_000)
LATEST = 100
"""Trials before each mark whose median is taken."""


def main() -> None:
    """Print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("--variant", default="medium", help="variant of PipeBench")
    parser.add_argument("--stored", type=int, nargs="+", default=STORED, help="numbers of trials")
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
    medians[TPE] = [_tpe(bench, studies["PetraSampler"], mark, arguments.tpe_repeats) for mark in marks]
    heads = (head for mark in marks for head in (f"{mark:,} stored", "share of TPE's"))
    script.print_table(("ms to plan a trial", *heads, "last / first"), _rows(medians))


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
    began = time.perf_counter()
    trial = study.ask()
    pipeline = suggest(trial, bench.space)
    milliseconds = 1e3 * (time.perf_counter() - began)
    outcome = bench.evaluate(pipeline)
    for name, excess in outcome.constraints.items():
        trial.set_constraint(name, excess)
    study.tell(trial, outcome.values, TrialState.FAIL if outcome.values is None else TrialState.COMPLETE)
    return milliseconds


def _rows(medians: dict[str, list[float]]) -> Iterator[list[object]]:
    for name, row in medians.items():
        pairs = zip(row, medians[TPE], strict=True)
        cells = (cell for ours, theirs in pairs for cell in (f"{ours:.1f}", f"{ours / theirs:.4f}"))
        yield [name, *cells, f"{row[-1] / row[0]:.1f}"]


if __name__ == "__main__":
    script.run(main)
