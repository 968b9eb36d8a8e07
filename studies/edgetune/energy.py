"""Print what the runtime objective and the energy objective lead to.

    python -m studies.edgetune.energy sr --data-root data/fsdd --energy-estimator cpu-time:6

Figure 16 of EDGETUNE. Both arms tune the same workload by BOHB with as many trials: ``runtime`` minimises
(training + inference time) / quality and tunes serving for throughput, ``energy`` minimises the same in
joules and tunes serving for energy. The energy of tuning is that of all processes of the study. Where the
machine counts no energy the estimator must be named, and the table says so.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import optuna

from petra_optuna.edgetune import TuningBudget, Workload, result_of, tune
from petra_optuna.errors import UserError
from petra_optuna.inference import EdgeDevice, serving_cores
from petra_optuna.measurement import COUNTERS, Counter, counter_named
from petra_optuna.measurement.energy import CpuTime
from petra_optuna.nn.inputs import to_feeds
from studies import script
from studies.edgetune.served import best_file, served, shown_model

DEVICE = EdgeDevice("one core", 1)
SERVING: Mapping[str, str] = {"runtime": "throughput", "energy": "energy"}
"""Objective -> what its serving is tuned for."""


def main() -> None:
    """Print the table."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    counter = counter_named(given.energy_estimator)
    if isinstance(counter, str):
        raise UserError(f"energy is {counter}; name an estimator, for example --energy-estimator cpu-time:6")
    workload = script.given_workload(given)
    print(f"Energy: {counter.source}\n")
    header = (
        *("workload", "objective", "seed", "tuning, s", "tuning, J", "quality", "model", "served with"),
        *("samples/s", "mJ a sample"),
    )
    script.print_table(header, _rows(workload, counter, given))


def _rows(workload: Workload, counter: Counter, given: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    for seed in range(given.seeds):
        for objective in SERVING:
            with tempfile.TemporaryDirectory() as folder:
                yield (
                    *(workload.name, objective, seed),
                    *_arm(objective, workload, seed, counter, Path(folder), given),
                )


def _arm(
    objective: str,
    workload: Workload,
    seed: int,
    counter: Counter,
    folder: Path,
    given: argparse.Namespace,
) -> tuple[object, ...]:
    began, before_j = time.perf_counter(), _joules(counter)
    url = f"sqlite:///{folder / 'study.db'}"
    study = tune(
        workload,
        objective=objective,
        inference_objective=SERVING[objective],
        budget=TuningBudget(max_epochs=given.max_epochs),
        device=DEVICE,
        trials=given.trials,
        storage=url,
        name=objective,
        energy_estimator=None if given.energy_estimator == COUNTERS else given.energy_estimator,
        train_threads=1,
        seed=seed,
    )
    seconds, joules = time.perf_counter() - began, _joules(counter) - before_j
    result = result_of(study)
    assert result.recommendation is not None
    setting = result.recommendation.setting
    file = best_file(study, url, folder)
    taken = served(
        file, to_feeds(workload.task.example), setting, serving_cores(DEVICE), given.energy_estimator
    )
    return (
        *(f"{seconds:.0f}", f"{joules:.0f}", f"{result.record.quality:.4f}"),
        *(shown_model(result), setting.describe()),
        *(f"{taken['throughput_per_s'].value:.0f}", f"{1e3 * taken['energy_j'].value:.3f}"),
    )


def _joules(counter: Counter) -> float:
    """Joules so far; an estimate by CPU time counts this process alone, so children are added."""
    if not isinstance(counter, CpuTime):
        return counter.joules()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return counter.joules() + counter.watts * (children.ru_utime + children.ru_stime)


def _arguments() -> argparse.Namespace:
    parser = script.workload_parser(__doc__)
    parser.add_argument("--energy-estimator", default=COUNTERS, help="cpu-time:WATTS where nothing counts")
    parser.add_argument("--trials", type=int, default=8, help="trials of each arm")
    parser.add_argument("--max-epochs", type=int, default=6, help="most epochs of a trial")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
