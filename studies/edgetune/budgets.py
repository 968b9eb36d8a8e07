"""Print what the three budgets reach: training until the target in seconds and epochs, and the best quality.

    python -m studies.edgetune.budgets sr --data-root data/fsdd --target 0.8

Figures 12 and 13 of EDGETUNE. Each budget tunes the workload by BOHB until a file reaches the target on the
selection split or the trials are spent, in studies that are continued where they exist. Inference is left
out, so that training alone is compared, on one thread. Seconds depend on what else the machine does; epochs,
of all the data, do not: one over a tenth of it counts a tenth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import optuna
from optuna.trial import TrialState

from petra_optuna.edgetune import (
    BudgetKind,
    TunedRecord,
    TuningBudget,
    Workload,
    parameter,
    record_of,
    tune,
)
from studies import script

KINDS: tuple[BudgetKind, ...] = ("multi", "epoch", "data")


def main() -> None:
    """Print the table."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    workload = script.given_workload(given)
    header = (
        "workload",
        "budget",
        "seed",
        "trials",
        "best quality",
        "until the target, s",
        "until the target, epochs",
        "in all, s",
        "in all, epochs",
    )
    script.print_table(header, _rows(workload, given))


def _rows(workload: Workload, given: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    parameters = {**workload.model_space, **workload.training_space}
    for seed in range(given.seeds):
        for kind in KINDS:
            study = tune(
                workload,
                dict(parameter(text, parameters) for text in given.space),
                objective="quality",
                inference_objective=None,
                budget=TuningBudget(kind, max_epochs=given.max_epochs),
                trials=given.trials,
                target_quality=given.target,
                storage=given.storage,
                name=f"budgets-{workload.name}-{kind}-{seed}",
                train_threads=1,
                seed=seed,
            )
            yield workload.name, kind, seed, *_cells(study, given.target)


def _cells(study: optuna.Study, target: float) -> tuple[object, ...]:
    trials = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    records = [record for trial in trials if (record := record_of(trial)) is not None]
    spent = np.cumsum([(record.rungs[-1].train_s, _epochs(record)) for record in records], axis=0)
    qualities = [record.quality or 0.0 for record in records]
    reached = [number for number, quality in enumerate(qualities) if quality >= target]
    until = _shown(spent[reached[0]]) if reached else ("not reached", "not reached")
    return len(records), f"{max(qualities):.4f}", *until, *_shown(spent[-1])


def _epochs(record: TunedRecord) -> float:
    """Epochs of all the data."""
    before = [0, *(rung.epochs for rung in record.rungs)]
    return sum(
        (rung.epochs - then) * rung.data_fraction for then, rung in zip(before, record.rungs, strict=False)
    )


def _shown(spent: np.ndarray) -> tuple[str, str]:
    return f"{spent[0]:.1f}", f"{spent[1]:.1f}"


def _arguments() -> argparse.Namespace:
    parser = script.workload_parser(__doc__)
    parser.add_argument("--target", type=float, required=True, help="quality at which a study ends")
    parser.add_argument("--space", nargs="*", default=[], help="ranges, NAME=LOW:HIGH or NAME=VALUE,VALUE")
    parser.add_argument("--trials", type=int, default=20, help="most trials of a study")
    parser.add_argument("--max-epochs", type=int, default=10, help="most epochs of a trial")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--storage", default="sqlite:///storage/edgetune.db", help="database of the studies")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
