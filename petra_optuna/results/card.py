"""What a card says of a trial: how its file was made and measured, for whoever gets the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import optuna

from petra_optuna.results.front import change_percent
from petra_optuna.study import Specification, StudyRecord
from petra_optuna.tasks import Task

TEMPLATES = resources.files("petra_optuna.results") / "templates"
_BASELINE_RUNTIMES = {"cpu": "ONNX Runtime", "cuda": "PyTorch on cuda"}
"""Runtime of the baseline by device, in a reader's words."""


def card_fields(study: optuna.Study, number: int, task: Task) -> dict[str, Any]:
    """What a card says of a trial, by the names in the templates.

    Args:
        study: Study of the trial.
        number: Number of the trial.
        task: Task of the study.

    Raises:
        StudyError: When the trial has no file.
    """
    record = StudyRecord(study)
    evaluation, specification, baseline = (
        record.evaluation(number),
        record.specification,
        record.baseline_record,
    )
    return {
        "title": f"{task.name}: {evaluation['notation']}",
        "task": task.name,
        "notation": evaluation["notation"],
        "trial": number,
        "study": study.study_name,
        "numbers": _numbers(evaluation["values"], baseline["values"]),
        "objectives": ", ".join(f"{name} ({direction})" for name, direction in specification.objectives),
        "limits": ", ".join(f"{name} {bound:g}" for name, bound in specification.limits.items()) or "none",
        "metric": task.metric.name,
        "selection": len(task.selection),
        **_measuring_fields(evaluation, specification, baseline),
        "precision": _precision(evaluation["lowering"]),
        "parity": _parity(evaluation["lowering"]["parity"]),
        "repair": _repair(evaluation["repair"]),
        "convolutions": _convolutions(evaluation["convolutions"], baseline["convolutions"]),
        "nodes": _numbered(evaluation["pipeline"]["nodes"]),
        "start": _start(specification, given="reference" not in baseline) + _stop(evaluation["stopped"]),
        "sha256": evaluation["artifact"]["sha256"],
    }


def _measuring_fields(
    evaluation: Mapping[str, Any], specification: Specification, baseline: Mapping[str, Any]
) -> dict[str, Any]:
    """How latency and throughput were measured, and on which machine."""
    profile, host, eager = specification.profile, baseline["host"], baseline["eager"]
    latency, throughput = evaluation["measurements"]["latency"], _best_throughput(evaluation)
    return {
        "latency_batch": profile.latency_batch,
        "throughput_batch": throughput["batch"],
        "throughput_batches": ", ".join(map(str, profile.throughput_batches)),
        "threads": profile.threads,
        "latency_ratio": f"{latency['ratio']:.3f}",
        "latency_interval": f"{latency['ratio_low']:.3f} to {latency['ratio_high']:.3f}",
        "latency_pairs": latency["pairs"],
        "throughput_ratio": f"{throughput['ratio']:.3f}",
        "throughput_interval": f"{throughput['ratio_low']:.3f} to {throughput['ratio_high']:.3f}",
        "throughput_pairs": throughput["pairs"],
        "load": _load(latency),
        "eager_latency": f"{eager['latency_ms']:.3f}",
        "eager_throughput": f"{eager['throughput_per_s']:.0f}",
        "cpu": host["cpu"],
        "onnxruntime": host["onnxruntime"],
        "runtime": profile.runtime,
        "baseline": _BASELINE_RUNTIMES[profile.name],
        "ran": latency["runtime"] or f"onnxruntime {host['onnxruntime']}",
    }


def _best_throughput(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The measurement at the batch size that gave the trial's throughput."""
    measurements: Sequence[dict[str, Any]] = evaluation["measurements"]["throughput"]
    best = evaluation["best_throughput_batch"]
    return next(measurement for measurement in measurements if measurement["batch"] == best)


def _start(specification: Specification, *, given: bool) -> str:
    """Where the pipeline starts, and what the original is there."""
    if specification.mode == "pretrained":
        return "It starts from the original."
    original = (
        "the given model" if given else f"the network trained once, for {specification.budget.epochs} epochs"
    )
    return (
        f"It starts from initialisation with seed {specification.seed}. The original is {original}; where "
        "the recipe distils it is the teacher, and its own training is not in the pipeline's epochs."
    )


def _stop(stopped: Mapping[str, Any] | None) -> str:
    """Where a rung ended the training early; empty where none did."""
    if stopped is None:
        return ""
    return (
        f" Its training was stopped after {stopped['epochs']:.3g} epochs ({stopped['reason']}); "
        "the file is of the model as it was then."
    )


def _load(latency: Mapping[str, Any]) -> str:
    """The other work on the machine, and what it did to single calls."""
    if latency["foreign_cores"] is None:
        return "not recorded by the release that measured this"
    return (
        f"other work kept {latency['foreign_cores']:.1f} cores busy; 95 % of the calls took at most "
        f"{latency['candidate_p95_ms']:.3g} ms there, the median {latency['candidate_ms']:.3g} ms"
    )


def _precision(lowering: Mapping[str, Any]) -> str:
    bits = (lowering["conversion"] or {}).get("weight_bits")
    if bits is None:
        return str(lowering["precision"])
    safe, unsafe = "which saturate on no CPU", "which saturate on x86 CPUs without VNNI: make it anew there"
    where = safe if bits == 7 else unsafe
    return f"{lowering['precision']}, weights of {bits} bits, {where}"


def _repair(repair: Mapping[str, Any] | None) -> str:
    if repair is None:
        return "none was needed"
    missed = f"the first file loses {repair['drop_before']:.4g}, the limit is {repair['limit']:.4g}"
    if repair["drop_after"] is None:
        return f"{missed}; {repair['reason']}"
    gain = (
        f"with {', '.join(repair['in_float'])} in float it loses {repair['drop_after']:.4g} "
        f"({repair['size_before']} bytes before, {repair['size_after']} after)"
    )
    return f"{missed}; {gain}; {'this' if repair['shipped'] else 'the first'} file ships"


def _convolutions(layouts: Mapping[str, Any] | None, of_baseline: Mapping[str, Any] | None) -> str:
    """The layouts of one-dimensional convolutions that were measured, and which one ships."""
    if layouts is None:
        return "none"
    speeds = (
        f"{layout} at {values['latency_ms']:.3f} ms, {values['throughput_per_s']:.0f} per s"
        for layout, values in layouts["values"].items()
    )
    failure = "" if layouts["failure"] is None else f" (2d: {layouts['failure']})"
    shipped = "1d" if of_baseline is None else of_baseline["shipped"]
    return f"run as {layouts['shipped']}, of {' and '.join(speeds)}{failure}; the baseline's run as {shipped}"


def _parity(parity: Mapping[str, Any] | None) -> str:
    """How far the file's outputs are from those of the model before conversion."""
    if parity is None:
        return "made by a release that wrote no certificate"
    agreement = parity["agreement"]
    same = "" if agreement is None else f"the same class for {agreement:.2%}, "
    kernels = (f"{sum(counts.values())} in {name}" for name, counts in parity["kernels"].items() if counts)
    stored = (f"{size} of {name}" for name, size in parity["bytes"].items() if size)
    return (
        f"{same}outputs off by {parity['mean_abs_difference']:.3g} in the mean and "
        f"{parity['max_abs_difference']:.3g} at most ({parity['samples']} real samples); weighted kernels: "
        f"{', '.join(kernels) or 'none'}; stored bytes: {', '.join(stored)}"
    )


def _numbered(nodes: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{position}. `{json.dumps(node)}`" for position, node in enumerate(nodes, 1)]
    return "\n".join(lines) or "The original, unchanged."


def _numbers(values: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """Rows of the table of values: the file's, the baseline's, the change."""
    rows = []
    for name, value in values.items():
        if name in baseline:
            change = change_percent(value, baseline[name])
            percent = "" if change is None else f"{change:+.1f} %"
            rows.append(f"| {name} | {value:.6g} | {baseline[name]:.6g} | {percent} |")
    return "\n".join(rows)
