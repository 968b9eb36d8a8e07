"""Print what the three budgets reach: seconds of training until the target, and the best quality.

    python -m studies.edgetune.budgets sr --data-root data/fsdd --target 0.8

Figures 12 and 13 of EDGETUNE. Each budget tunes the workload by BOHB until a file reaches the target on the
selection split or the trials are spent, in studies that are continued where they exist. Inference is left
out, so that training alone is compared, on one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import optuna
from optuna.trial import TrialState

from petra_optuna.edgetune import (
    BudgetKind,
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
        "training until the target, s",
        "training in all, s",
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
    records = [
        (trial, record)
        for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        if (record := record_of(trial)) is not None
    ]
    spent, until = 0.0, None
    best = 0.0
    for _, record in records:
        spent += record.rungs[-1].train_s
        best = max(best, record.quality or 0.0)
        if until is None and best >= target:
            until = spent
    reached = "not reached" if until is None else f"{until:.1f}"
    return len(records), f"{best:.4f}", reached, f"{spent:.1f}"


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
