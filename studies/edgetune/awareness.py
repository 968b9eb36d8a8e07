"""Print what tuning for serving is worth against plain tuning, and onefold against hierarchical tuning.

    python -m studies.edgetune.awareness nlp --data-root data/ag_news --target 0.87 --seconds 240

EDGETUNE's comparison of its section 5. Three arms search by BOHB for equal time, on one core of training.
``onefold`` minimises (training + inference time) / quality, its serving tuned beside the training. ``plain``
minimises training time / quality, and its best model serves one sample by all threads of the device.
``hierarchical`` is ``plain`` for the first part of the time, and then tunes the serving of its best model.
The table shows the seconds of tuning until a file reaches the target, and how fast the result serves,
measured at the end. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.trial import TrialState

from petra_optuna.database import open_storage
from petra_optuna.edgetune import (
    TuningBudget,
    Workload,
    fetch_file,
    record_of,
    result_of,
    tune,
)
from petra_optuna.inference import EdgeDevice, InferenceTuner, inference_objective, serving_cores
from petra_optuna.inference.objective import figures
from petra_optuna.measurement import InferenceSetting, SettingProcess
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.noise import Reading
from studies import script

DEVICE = EdgeDevice("one core", 1)
FIRST_PART = 0.8
"""Share of the time in which ``hierarchical`` tunes the model."""


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
        for arm in ("onefold", "plain", "hierarchical"):
            with tempfile.TemporaryDirectory() as folder:
                yield workload.name, arm, seed, *_arm(arm, workload, seed, Path(folder), given)


def _arm(
    arm: str, workload: Workload, seed: int, folder: Path, given: argparse.Namespace
) -> tuple[object, ...]:
    began = time.perf_counter()
    path = folder / "study.db"
    study = tune(
        workload,
        inference_objective="throughput" if arm == "onefold" else None,
        budget=TuningBudget(max_epochs=given.max_epochs),
        device=DEVICE,
        timeout_s=given.seconds * (FIRST_PART if arm == "hierarchical" else 1.0),
        storage=path,
        name=arm,
        train_threads=1,
        seed=seed,
    )
    result = result_of(study)
    url = f"sqlite:///{path}"
    file = folder / "model.onnx"
    fetch_file(result, url, file)
    feeds = to_feeds(workload.task.example)
    cores = serving_cores(DEVICE)
    setting = InferenceSetting()
    if result.recommendation is not None:
        setting = result.recommendation.setting
    elif arm == "hierarchical":
        tuner = InferenceTuner(open_storage(url), DEVICE, cores, inference_objective("throughput"))
        setting = tuner.recommend(file, feeds).setting
    seconds = time.perf_counter() - began
    with SettingProcess(file, feeds, cores) as process:
        served = figures(process.measure(setting), Reading(process.anchor_ms()))["throughput_per_s"].value
    return (
        *(len(study.trials), f"{seconds:.0f}", _until(study, given.target), f"{result.record.quality:.4f}"),
        *(", ".join(f"{name} {value}" for name, value in result.model.items()), setting.describe()),
        f"{served:.0f}",
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
    parser.add_argument("--seconds", type=float, default=240.0, help="time of each arm")
    parser.add_argument("--max-epochs", type=int, default=6, help="most epochs of a trial")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
