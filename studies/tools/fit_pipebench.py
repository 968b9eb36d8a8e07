"""Print the coefficients of PipeBench that fit recorded trials best, and the residuals.

    python -m studies.tools.fit_pipebench sqlite:///storage/digits_seeds/study.db digits-0 digits-1 digits-2
    python -m studies.tools.fit_pipebench URL STUDY... --write

Every complete trial is run through the surrogate; the fit minimises the differences of quality, of the
logarithms of latency and size, and of what the reports of its nodes say of weights, arithmetic and time. A
coefficient that no trial speaks of stays where it is: each is held to its old value by a weak spring on its
logarithm. Constants (chance, the original's values) are read from the study or stay. With ``--write`` the
package's table is replaced, and the reference fronts are then to be made again. Failed trials carry no
numbers and are not used.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from scipy.optimize import least_squares

import petra_optuna.pipebench
from petra_optuna.aliases import Array
from petra_optuna.database import open_storage
from petra_optuna.errors import PipelineError, TrialError, UserError
from petra_optuna.evaluation import EFFICIENCY_METRICS
from petra_optuna.pipebench import PipeBench, fitted_names, full_space, profile
from petra_optuna.pipebench.coefficients import BASE, FILE, Coefficients, table
from petra_optuna.pipeline import Pipeline
from petra_optuna.results.report import as_markdown
from petra_optuna.study import StudyRecord, TrialRecord, load_study
from studies import script

SCALES = {"quality": 0.02, "latency": 0.05, "size": 0.03, "parameters": 0.1, "macs": 0.1, "seconds": 0.3}
"""What counts as one unit of error: of quality itself, of logarithms otherwise."""
SPRING = 0.2
"""Units of error for a coefficient that is e times its old value."""
STEPS = 30
LONGEST = 16


@dataclasses.dataclass(frozen=True)
class Observation:
    """What one trial tells the fit.

    Attributes:
        pipeline: The trial's pipeline, in the surrogate's space.
        epochs: Budget of its study.
        quality: Quality of the file on the selection split.
        latency, size: Shares of the original's.
        nodes: One mapping for each node of the body: parameters and macs as shares of those before it where
            the report has them, and seconds.
        original: The original's values.
    """

    pipeline: Pipeline
    epochs: int
    quality: float
    latency: float
    size: float
    nodes: tuple[Mapping[str, float], ...]
    original: Mapping[str, float]


def main() -> None:
    """Read, fit, print."""
    parser = script.parser(__doc__)
    parser.add_argument("storage", help="URL of the database")
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--write", action="store_true", help="replace the package's table")
    arguments = parser.parse_args()
    storage = open_storage(arguments.storage, must_exist=True)
    studies = [load_study(storage, name) for name in arguments.studies]
    observations = [item for study in studies for item in observe(study)]
    if not observations:
        raise UserError("the studies have no complete trial with a petra:evaluation that the surrogate knows")
    old = {**profile(BASE), **_original(observations)}
    new = fit(observations, old)
    print(f"{len(observations)} trials of {len(arguments.studies)} studies\n")
    print(residual_table(observations, old, new))
    print(coefficient_table(profile(BASE), new))
    if arguments.write:
        path = Path(petra_optuna.pipebench.__file__).parent / FILE
        data = {**table(), "coefficients": {name: float(f"{value:.6g}") for name, value in new.items()}}
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def observe(study: optuna.Study) -> Iterator[Observation]:
    """The complete trials of a study whose pipelines the surrogate's space holds.

    Raises:
        StudyError: When the study was not made by petra.
    """
    study_record = StudyRecord(study)
    epochs, baseline = study_record.specification.budget.epochs, study_record.baseline_values
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        record = TrialRecord(
            trial
        ).evaluation_fields  # not in the present form: the surrogate lacks new fields
        if record is not None:
            try:
                yield observation(record, baseline, epochs)
            except PipelineError as error:
                print(f"{study.study_name}, trial {trial.number} is left out: {error}")


def observation(record: Mapping[str, Any], original: Mapping[str, float], epochs: int) -> Observation:
    """Read one ``petra:evaluation``.

    Raises:
        PipelineError: When the pipeline has nodes or fields that the surrogate lacks.
    """
    (metric,) = set(original) - {known.name for known in EFFICIENCY_METRICS}
    values = record["values"]
    return Observation(
        pipeline=Pipeline.from_dict(record["pipeline"], full_space(LONGEST).operations),
        epochs=epochs,
        quality=values[metric],
        latency=values["latency_ms"] / original["latency_ms"],
        size=values["size_bytes"] / original["size_bytes"],
        nodes=tuple(_shares(report) for report in record["nodes"]),
        original={
            "quality": original[metric],
            **{key: original[key] for key in ("latency_ms", "size_bytes")},
        },
    )


def predict(item: Observation, coefficients: Coefficients) -> dict[str, list[float]]:
    """Differences of the surrogate from a trial's numbers by kind, in units of ``SCALES``.

    Raises:
        TrialError: When the pipeline fails in the surrogate.
    """
    merged = {**coefficients, **item.original}
    bench = PipeBench(
        "fit", full_space(LONGEST), ("quality", "latency_ms", "size_bytes"), merged, item.epochs
    )
    states = bench.states(item.pipeline)
    values = bench.outcome(states[-1]).values
    assert values is not None
    errors = {
        "quality": [values[0] - item.quality],
        "latency": [np.log(values[1] / merged["latency_ms"] / item.latency)],
        "size": [np.log(values[2] / merged["size_bytes"] / item.size)],
        "parameters": [],
        "macs": [],
        "seconds": [],
    }
    for report, before, after in zip(item.nodes, states[:-1], states[1:], strict=False):
        said = {
            "parameters": after.parameters / before.parameters,
            "macs": after.macs / before.macs,
            "seconds": after.seconds - before.seconds,
        }
        for name, value in said.items():
            if name in report and value > 0:
                errors[name].append(np.log(value / report[name]))
    return {name: [error / SCALES[name] for error in kind] for name, kind in errors.items()}


def fit(
    observations: Sequence[Observation], old: Coefficients, names: Sequence[str] | None = None
) -> dict[str, float]:
    """The coefficients that fit the observations best, near the old ones where these say nothing.

    Args:
        observations: Trials to fit; those that fail in the surrogate are left out.
        old: The coefficients to start from.
        names: Coefficients that may change; all that are not constants when None.
    """
    names = fitted_names(old) if names is None else names
    start = np.array([old[name] for name in names])
    usable = [item for item in observations if _runs(item, old)]

    def residuals(logs: Array) -> Array:
        coefficients = {**old, **dict(zip(names, (start * np.exp(logs)).tolist(), strict=True))}
        errors = [error for item in usable for kind in predict(item, coefficients).values() for error in kind]
        return np.array([*errors, *(SPRING * logs)])

    solution = least_squares(
        residuals, np.zeros(len(names)), loss="soft_l1", bounds=(-4.0, 4.0), ftol=1e-4, max_nfev=STEPS
    )
    return {**old, **dict(zip(names, (start * np.exp(solution.x)).tolist(), strict=True))}


def residual_table(observations: Sequence[Observation], old: Coefficients, new: Coefficients) -> str:
    """Median and 90th percentile of the absolute errors, before and after, in the unit of the value."""
    tables, rows = [], []
    for coefficients in (old, new):
        errors: dict[str, list[float]] = {name: [] for name in SCALES}
        for item in observations:
            if _runs(item, coefficients):
                for name, differences in predict(item, coefficients).items():
                    errors[name] += [abs(error) * SCALES[name] for error in differences]
        tables.append(errors)
    for name in SCALES:
        before, after = (np.array(errors[name] or [np.nan]) for errors in tables)
        cells = [np.median(before), np.median(after), np.quantile(before, 0.9), np.quantile(after, 0.9)]
        unit = "points" if name == "quality" else "% (log)"
        rows.append([f"{name}, {unit}", str(len(tables[1][name])), *(f"{100 * cell:.1f}" for cell in cells)])
    header = ("error of", "count", "median, old", "median, new", "90 %, old", "90 %, new")
    return as_markdown(header, rows) + "\n"


def coefficient_table(old: Coefficients, new: Coefficients) -> str:
    """The coefficients that changed by more than a thousandth."""
    rows = [
        [name, f"{old[name]:.4g}", f"{value:.4g}"]
        for name, value in new.items()
        if abs(value - old[name]) > 1e-3 * abs(old[name])
    ]
    return as_markdown(("coefficient", "old", "new"), rows)


def _original(observations: Sequence[Observation]) -> dict[str, float]:
    names = observations[0].original
    return {name: float(np.mean([item.original[name] for item in observations])) for name in names}


def _runs(item: Observation, coefficients: Coefficients) -> bool:
    try:
        predict(item, coefficients)
    except TrialError as error:
        print(f"{item.pipeline.describe()} ran, but fails in the surrogate: {error}")
        return False
    return True


def _shares(report: Mapping[str, Any]) -> dict[str, float]:
    shares = {"seconds": float(report["seconds"])}
    for name in ("parameters", "macs"):
        before, after = report.get(f"{name}_before"), report.get(f"{name}_after")
        if before and after:
            shares[name] = after / before
    return shares


if __name__ == "__main__":
    script.run(main)
