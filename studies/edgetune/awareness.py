"""Print what tuning for serving is worth against plain, hierarchical and constrained tuning.

    python -m studies.edgetune.awareness sr --data-root data/fsdd --target 0.9 --seconds 240

EDGETUNE's comparison of its section 5, with Figure 17. The arms search by BOHB for equal time, on one core of
training. ``onefold`` minimises (training + inference time) / quality, its serving tuned beside the training.
``plain`` minimises training time / quality, and its best model serves one sample by all of the device.
``hierarchical`` is ``plain`` for the first part of the time, and then tunes the serving of its best model.
``constrained`` is what HyperPower does (arXiv 1712.02446): Bayesian optimisation of the quality with early
termination, under a limit on the time of samples that are served one by one. The table shows the seconds of
tuning until a file reaches the target, and how fast the result serves, measured at the end. Run it on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from petra_optuna.database import open_storage
from petra_optuna.edgetune import TuningBudget, Workload, record_of, result_of, tune
from petra_optuna.inference import EdgeDevice, InferenceTuner, inference_objective, serving_cores
from petra_optuna.measurement import InferenceSetting
from petra_optuna.nn.inputs import to_feeds
from studies import script
from studies.edgetune.served import best_file, served, shown_model

DEVICE = EdgeDevice("one core", 1)
FIRST_PART = 0.8
"""Share of the time in which ``hierarchical`` tunes the model."""
PLAIN: Mapping[str, Any] = {"inference_objective": None}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "onefold": {"inference_objective": "throughput"},
    "plain": PLAIN,
    "hierarchical": PLAIN,
    "constrained": {"objective": "quality", "inference_objective": "latency", "max_batch": 1},
}


def main() -> None:
    """Print the table."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    workload = script.given_workload(given)
    header = (
        *("workload", "arm", "seed", "trials", "tuning, s", "until the target, s", "quality", "model"),
        *("served with", "samples/s"),
    )
    script.print_table(header, _rows(workload, given))


def _rows(workload: Workload, given: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    for seed in range(given.seeds):
        for arm in ARMS:
            with tempfile.TemporaryDirectory() as folder:
                yield workload.name, arm, seed, *_arm(arm, workload, seed, Path(folder), given)


def _arm(
    arm: str, workload: Workload, seed: int, folder: Path, given: argparse.Namespace
) -> tuple[object, ...]:
    began = time.perf_counter()
    url = f"sqlite:///{folder / 'study.db'}"
    study = tune(
        workload,
        budget=TuningBudget(max_epochs=given.max_epochs),
        device=DEVICE,
        timeout_s=given.seconds * (FIRST_PART if arm == "hierarchical" else 1.0),
        storage=url,
        name=arm,
        train_threads=1,
        limits=[given.limit] if arm == "constrained" else [],
        seed=seed,
        **ARMS[arm],
    )
    result = result_of(study)
    file = best_file(study, url, folder)
    feeds = to_feeds(workload.task.example)
    cores = serving_cores(DEVICE)
    setting = InferenceSetting()
    if result.recommendation is not None:
        setting = result.recommendation.setting
    elif arm == "hierarchical":
        tuner = InferenceTuner(open_storage(url), DEVICE, cores, inference_objective("throughput"))
        setting = tuner.recommend(file, feeds).setting
    seconds = time.perf_counter() - began
    rate = served(file, feeds, setting, cores)["throughput_per_s"].value
    return (
        *(len(study.trials), f"{seconds:.0f}", _until(study, given.target), f"{result.record.quality:.4f}"),
        *(shown_model(result), setting.describe()),
        f"{rate:.0f}",
    )


def _until(study: optuna.Study, target: float) -> str:
    """Seconds from the beginning of the study until a file reached the target."""
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        record = record_of(trial)
        if trial.state == TrialState.COMPLETE and record is not None and (record.quality or 0.0) >= target:
            assert trial.datetime_complete is not None
            assert trials[0].datetime_start is not None
            return f"{(trial.datetime_complete - trials[0].datetime_start).total_seconds():.0f}"
    return "not reached"


def _arguments() -> argparse.Namespace:
    parser = script.workload_parser(__doc__)
    parser.add_argument("--target", type=float, required=True, help="quality whose time is shown")
    parser.add_argument("--limit", default="inference_s<=30", help="limit of the constrained arm")
    parser.add_argument("--seconds", type=float, default=240.0, help="time of each arm")
    parser.add_argument("--max-epochs", type=int, default=6, help="most epochs of a trial")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
