"""A trial becomes a folder that someone else can run."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import optuna
import torch

from petra_optuna.errors import StudyError
from petra_optuna.evaluation import checkpoint, quality_of
from petra_optuna.measurement import DeviceProfile
from petra_optuna.results.artifacts import check_task, fetch_model, written_folder
from petra_optuna.results.front import change_percent, evaluation_of
from petra_optuna.runtimes import runtime
from petra_optuna.study import record as attributes
from petra_optuna.study.lookup import fetch, specification_of
from petra_optuna.study.objective import MODEL_FILE
from petra_optuna.study.specification import Specification
from petra_optuna.tasks import Task

_BASELINES = {"cpu": "ONNX Runtime", "cuda": "PyTorch on cuda"}
"""By device, what runs the original as the baseline, as a reader knows it."""
TEMPLATES = resources.files("petra_optuna.results") / "templates"


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What was written, and the check that it passed.

    Attributes:
        folder: Where the files are.
        quality: The metric of the exported file on the selection split, just computed.
        stored: The same as the trial stored it.
    """

    folder: Path
    quality: float
    stored: float


def export_trial(study: optuna.Study, number: int, out: Path, task: Task) -> ExportResult:
    """Write ``model.onnx``, ``preprocess.json``, ``run.py``, ``card.md``, ``recipe.json`` and ``rebuild/``.

    The folder appears only after the file has been run on the selection split and agrees with what
    the trial stored.

    Raises:
        StudyError: When the trial has no file, the file disagrees, or the folder cannot be written.
    """
    record = evaluation_of(study, number)
    task = check_task(study, task)
    with written_folder(out) as folder:
        exported = _write(study, number, record, specification_of(study), task, folder)
    return dataclasses.replace(exported, folder=out)


def _write(
    study: optuna.Study,
    number: int,
    record: dict[str, Any],
    specification: Specification,
    task: Task,
    folder: Path,
) -> ExportResult:
    model = folder / MODEL_FILE
    fetch_model(study, record, model)
    quality = _check(model, record, task, specification.profile)
    rebuild = folder / "rebuild.safetensors"
    fetch(study, record["rebuild"]["id"], rebuild)
    rebuilt = checkpoint.from_bytes(rebuild.read_bytes(), task.model)
    rebuild.unlink()
    checkpoint.save(rebuilt, task.model, folder / "rebuild")
    preprocess = {**task.preprocess, "labels": list(task.labels), "metric": task.metric.name}
    (folder / "preprocess.json").write_text(json.dumps(preprocess, indent=2) + "\n")
    recipe = {"task": task.name, "study": study.study_name, "trial": number, **record["pipeline"]}
    recipe["budget"] = dataclasses.asdict(specification.budget)
    recipe["seed"] = specification.seed
    recipe["mode"] = specification.mode
    recipe["repair"] = record.get("repair")
    recipe["convolutions"] = record["lowering"].get("convolutions")
    recipe["stopped"] = record.get("stopped")
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
    (folder / "run.py").write_text(run_script(*specification.profile.place))
    card = Template((TEMPLATES / "card.md").read_text())
    (folder / "card.md").write_text(card.substitute(card_fields(study, number, record, specification, task)))
    return ExportResult(folder, quality, record["values"][task.metric.name])


def run_script(runtime_name: str, device: str) -> str:
    """Text of a script that runs ``model.onnx`` beside it in the runtime on the device."""
    lines = runtime(runtime_name).run_script(device)
    return Template((TEMPLATES / "run.py.txt").read_text()).substitute(dataclasses.asdict(lines))


def _check(model: Path, record: dict[str, Any], task: Task, profile: DeviceProfile) -> float:
    """The file's quality on the selection split, after comparing it with the record."""
    quality = quality_of(model, task, task.selection, torch.get_num_threads(), *profile.place)
    stored = record["values"][task.metric.name]
    # One sample of an accuracy; other metrics move with every output.
    tolerance = (1 / len(task.selection) if task.metric.name == "accuracy" else 1e-3 * abs(stored)) + 1e-9
    if abs(quality - stored) > tolerance:
        raise StudyError(
            f"the file scores {task.metric.name} {quality:.4f} on the selection split here, the trial stored "
            f"{stored:.4f}; another CPU or version of {profile.runtime}? nothing was exported"
        )
    return quality


def card_fields(
    study: optuna.Study, number: int, record: dict[str, Any], specification: Specification, task: Task
) -> dict[str, Any]:
    """What a card says of a trial, by the names in the templates."""
    baseline = study.user_attrs[attributes.BASELINE]
    latency, throughput = record["measurements"]["latency"], _best_throughput(record)
    return {
        "title": f"{task.name}: {record['notation']}",
        "task": task.name,
        "notation": record["notation"],
        "trial": number,
        "study": study.study_name,
        "numbers": _numbers(record["values"], baseline["values"]),
        "objectives": ", ".join(f"{name} ({direction})" for name, direction in specification.objectives),
        "limits": ", ".join(f"{name} {most:g}" for name, most in specification.limits.items()) or "none",
        "metric": task.metric.name,
        "selection": len(task.selection),
        "latency_batch": specification.profile.latency_batch,
        "throughput_batch": throughput["batch"],
        "throughput_batches": ", ".join(map(str, specification.profile.throughput_batches)),
        "threads": specification.profile.threads,
        "latency_ratio": f"{latency['ratio']:.3f}",
        "latency_interval": f"{latency['ratio_low']:.3f} to {latency['ratio_high']:.3f}",
        "latency_pairs": latency["pairs"],
        "throughput_ratio": f"{throughput['ratio']:.3f}",
        "throughput_interval": f"{throughput['ratio_low']:.3f} to {throughput['ratio_high']:.3f}",
        "throughput_pairs": throughput["pairs"],
        "beside": _beside(latency),
        "eager_latency": f"{baseline['eager']['latency_ms']:.3f}",
        "eager_throughput": f"{baseline['eager']['throughput_per_s']:.0f}",
        "cpu": baseline["host"]["cpu"],
        "onnxruntime": baseline["host"]["onnxruntime"],
        "runtime": specification.profile.runtime,
        "baseline": _BASELINES[specification.profile.name],
        "ran": latency.get("runtime") or f"onnxruntime {baseline['host']['onnxruntime']}",
        "precision": _precision(record["lowering"]),
        "parity": _parity(record["lowering"]["parity"]),
        "repair": _repair(record.get("repair")),
        "convolutions": _convolutions(record.get("convolutions"), baseline.get("convolutions")),
        "nodes": _numbered(record["pipeline"]["nodes"]),
        "start": _start(specification, given="reference" not in baseline) + _stop(record.get("stopped")),
        "sha256": record["artifact"]["sha256"],
    }


def _best_throughput(record: dict[str, Any]) -> dict[str, Any]:
    """The measurement whose batch size gave the trial's throughput."""
    measured = record["measurements"]["throughput"]
    if isinstance(measured, dict):  # of the time when there was one batch size
        return measured
    best = record["best_throughput_batch"]
    return next(item for item in measured if item["batch"] == best)


def _start(specification: Specification, *, given: bool) -> str:
    """Where the pipeline starts, and what the original then is."""
    if specification.mode == "pretrained":
        return "It starts from the original."
    original = (
        "the given model" if given else f"the network trained once, for {specification.budget.epochs} epochs"
    )
    return (
        f"It starts from initialisation with seed {specification.seed}. The original is {original}; where "
        "the recipe distils it is the teacher, and its own training is not in the pipeline's epochs."
    )


def _stop(stopped: dict[str, Any] | None) -> str:
    """Where its training ended before its time."""
    if stopped is None:
        return ""
    return (
        f" Its training was stopped after {stopped['epochs']:.3g} epochs ({stopped['reason']}); "
        "the file is of the model as it was then."
    )


def _beside(latency: dict[str, Any]) -> str:
    """What the machine did besides, and what that did to single calls."""
    if latency.get("foreign_cores") is None:
        return "not recorded by the release that measured this"
    return (
        f"other work kept {latency['foreign_cores']:.1f} cores busy; 95 % of the calls took at most "
        f"{latency['candidate_p95_ms']:.3g} ms there, the median {latency['candidate_ms']:.3g} ms"
    )


def _precision(lowering: dict[str, Any]) -> str:
    bits = (lowering["conversion"] or {}).get("weight_bits")
    if bits is None:
        return str(lowering["precision"])
    safe, unsafe = "which saturate on no CPU", "which saturate on x86 CPUs without VNNI: make it anew there"
    where = safe if bits == 7 else unsafe
    return f"{lowering['precision']}, weights of {bits} bits, {where}"


def _repair(repair: dict[str, Any] | None) -> str:
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


def _convolutions(found: dict[str, Any] | None, baseline: dict[str, Any] | None) -> str:
    if found is None:
        return "none"
    speeds = (
        f"{form} at {values['latency_ms']:.3f} ms, {values['throughput_per_s']:.0f} per s"
        for form, values in found["values"].items()
    )
    failure = "" if found["failure"] is None else f" (2d: {found['failure']})"
    theirs = "1d" if baseline is None else baseline["shipped"]
    return f"run as {found['shipped']}, of {' and '.join(speeds)}{failure}; the baseline's run as {theirs}"


def _parity(parity: dict[str, Any]) -> str:
    if "samples" not in parity:
        return "made by a release that wrote no certificate"
    agreement = parity["agreement"]
    same = "" if agreement is None else f"the same class for {agreement:.2%}, "
    kernels = (f"{sum(found.values())} in {name}" for name, found in parity["kernels"].items() if found)
    stored = (f"{size} of {name}" for name, size in parity["bytes"].items() if size)
    return (
        f"{same}outputs off by {parity['mean_abs_difference']:.3g} in the mean and "
        f"{parity['max_abs_difference']:.3g} at most ({parity['samples']} real samples); weighted kernels: "
        f"{', '.join(kernels) or 'none'}; stored bytes: {', '.join(stored)}"
    )


def _percent(value: float, original: float) -> str:
    change = change_percent(value, original)
    return "" if change is None else f"{change:+.1f} %"


def _numbered(nodes: list[dict[str, Any]]) -> str:
    lines = [f"{position}. `{json.dumps(node)}`" for position, node in enumerate(nodes, 1)]
    return "\n".join(lines) or "The original, unchanged."


def _numbers(values: dict[str, float], original: dict[str, float]) -> str:
    return "\n".join(
        f"| {name} | {value:.6g} | {original[name]:.6g} | {_percent(value, original[name])} |"
        for name, value in values.items()
        if name in original
    )
