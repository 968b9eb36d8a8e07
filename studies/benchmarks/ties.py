"""Print what knowing the noise of measured values does to a search: ablation on PipeBench.

    python -m studies.benchmarks.ties --variants small medium large --seeds 10

Each search sees latencies with noise (``PipeBench.noise``). It takes them as they come (``exact``), or knows
their errors: files of one shape share their readings, and what overlaps is a tie (``pooled``). Compared by
the values without noise: the hypervolume of all trials, the share of the credited mutations whose child truly
entered the front, the rows of the front in the end, and how many of these another row dominates in truth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from petra_optuna.evolution import Bounds, FrontTrace, MeasuredPoint, minimised, non_dominated
from petra_optuna.noise import Reading
from petra_optuna.pipebench import VARIANTS, PipeBench
from petra_optuna.pipebench.bench import NOISE
from petra_optuna.pipeline import Pipeline, suggest
from petra_optuna.samplers import BOUNDS, SHAPE, MeasuredValues, PetraSampler, ShapeReadings, operator_history
from petra_optuna.study.standing import Standing
from studies import script

LATENCY = "latency_ms"
TRUE = "true"
"""User attribute of a trial: its values without noise."""


def main() -> None:
    """Run the searches and print a row for each variant and arm."""
    parser = script.parser(__doc__)
    parser.add_argument("--variants", nargs="+", default=["small", "medium", "large"], choices=VARIANTS)
    parser.add_argument("--trials", type=int, default=100, help="trials of each search")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--noise", type=float, default=1.0, help="strength of PipeBench's noise")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    header = ("variant", "values", "hypervolume", "±", "true progress, % of credit", "rows", "dominated rows")
    script.print_table(header, _rows(arguments.variants, arguments.trials, arguments.seeds, arguments.noise))


def _rows(variants: Sequence[str], trials: int, seeds: int, noise: float) -> Iterator[list[object]]:
    for variant in variants:
        bench = PipeBench.variant(variant, noise)
        for pooled in (False, True):
            results = [_Search(bench, pooled).run(seed, trials) for seed in range(seeds)]
            volumes = [result.hypervolume for result in results]
            means = [
                f"{np.mean(column):.1f}"
                for column in zip(*(dataclasses.astuple(result)[1:] for result in results), strict=True)
            ]
            spread = np.std(volumes, ddof=1) / math.sqrt(seeds) if seeds > 1 else math.nan
            name = "pooled" if pooled else "exact"
            yield [variant, name, f"{np.mean(volumes):.3f}", f"{spread:.3f}", *means]


@dataclasses.dataclass(frozen=True)
class _Result:
    """What a search came to, by the values without noise."""

    hypervolume: float
    true_credit_percent: float
    rows: int
    dominated_rows: int


@dataclasses.dataclass(frozen=True)
class _Search:
    """A search on a benchmark with noise.

    Attributes:
        bench: Benchmark with noise.
        pooled: Whether the sampler is told the errors of its values.
    """

    bench: PipeBench
    pooled: bool

    def run(self, seed: int, trials: int) -> _Result:
        bench = self.bench
        study = optuna.create_study(directions=bench.directions, sampler=PetraSampler(bench.space, seed=seed))
        study.set_metric_names(list(bench.objectives))
        study.set_user_attr(BOUNDS, bench.bounds)
        for _ in range(trials):
            self._run_trial(study)
        complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
        rows = Standing.of(complete, MeasuredValues.of_study(study), None).front
        true = [trial.user_attrs[TRUE] for trial in rows]
        return _Result(
            bench.without_noise().hypervolume([tuple(trial.user_attrs[TRUE]) for trial in complete]),
            100 * self._true_share(study, complete),
            len(rows),
            len(rows) - len(non_dominated(true, bench.directions)),
        )

    def _run_trial(self, study: optuna.Study) -> None:
        trial = study.ask()
        pipeline = suggest(trial, self.bench.space)
        measured, true = self.bench.evaluate(pipeline), self.bench.without_noise().evaluate(pipeline)
        if measured.values is None or true.values is None:
            study.tell(trial, state=TrialState.FAIL)
            return
        for name, excess in measured.constraints.items():
            trial.set_constraint(name, excess)
        trial.set_user_attr(TRUE, list(true.values))
        if self.pooled:
            trial.set_user_attr(SHAPE, self._readings(pipeline, measured.values, true.values).to_dict())
        study.tell(trial, measured.values)

    def _readings(
        self, pipeline: Pipeline, measured: Sequence[float], true: Sequence[float]
    ) -> ShapeReadings:
        """The latency as one reading of its shape; files of one latency and size have one shape."""
        index = self.bench.objectives.index(LATENCY)
        reading = Reading(measured[index], self.bench.noise * NOISE[LATENCY])
        return ShapeReadings(repr(true[1:]), {pipeline.hash: {LATENCY: reading}})

    def _true_share(self, study: optuna.Study, complete: Sequence[FrozenTrial]) -> float:
        """Share of the mutations with full credit whose child entered the front as it truly stood."""
        bounds = Bounds.from_dict(self.bench.bounds)
        trace = FrontTrace(len(self.bench.directions))
        entered = {}
        for trial in complete:
            values = trial.user_attrs[TRUE]
            inside = np.all(bounds.unit([values], self.bench.directions) < 1)
            point = MeasuredPoint.exact(minimised([values], self.bench.directions)[0])
            entered[trial.number] = trace.push(point if inside else None)
        credited = _fully_credited(study)
        return float(np.mean([entered[number] for number in credited])) if credited else math.nan


def _fully_credited(study: optuna.Study) -> list[int]:
    """Numbers of the mutated trials that earned full credit."""
    mutated = [trial.number for trial in study.trials if trial.system_attrs["petra:plan"]["operator"]]
    uses = operator_history(study, len(mutated))
    return [number for number, use in zip(mutated, uses, strict=True) if use.credit == 1.0]


if __name__ == "__main__":
    script.run(main)
