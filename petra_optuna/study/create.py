"""Making a study with its yardstick and controls, and finding it again."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.artifacts import FileSystemArtifactStore, download_artifact, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from torch.utils.benchmark import Timer

from petra_optuna.deploy import SERIES, lower
from petra_optuna.errors import StudyError, TaskError, TrialError
from petra_optuna.evaluation import (
    QUALITY_DROP,
    Forms,
    Lowered,
    counted,
    faster_form,
    quality_of,
    quantity,
    training_price,
)
from petra_optuna.evolution import Bounds
from petra_optuna.measurement import DeviceProfile, MeasuringProcess, Yardstick
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, take, to_feeds
from petra_optuna.pipeline import Pipeline, SearchSpace, encode
from petra_optuna.samplers import BOUNDS, database_url
from petra_optuna.study import attributes
from petra_optuna.study.controls import controls
from petra_optuna.study.reference import with_reference
from petra_optuna.study.specification import Specification
from petra_optuna.study.storage import artifacts_folder
from petra_optuna.tasks import Task

YARDSTICK_FILE = "yardstick.onnx"


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What a study starts with besides its yardstick and controls.

    Attributes:
        pipelines: Enqueued after the controls.
        attributes: User attributes of the study, frozen before its first plan.
    """

    pipelines: tuple[Pipeline, ...] = ()
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def create_study(
    storage: RDBStorage,
    name: str,
    task: Task,
    space: SearchSpace,
    specification: Specification,
    begin: Callable[[], Beginning] = Beginning,
) -> optuna.Study:
    """Measure the original, freeze it as the yardstick, enqueue the controls and what else is given.

    An original that nothing has trained is trained first (``study.reference``).

    A study of that name with the same specification is continued.

    Args:
        storage: Where the study is, or shall be.
        name: Of the study.
        task: The original model, its data and its metric.
        space: The search space.
        specification: Of the study.
        begin: What a new study starts with besides; not called for one that is continued.

    Raises:
        StudyError: When the name exists with another specification.
        TaskError: When the original itself cannot become a file.
    """
    existing = _find(storage, name)
    if existing is not None and not _is_cut_off(existing):
        check_same(existing, specification)
        return existing
    if existing is not None:
        optuna.delete_study(study_name=name, storage=storage)
    beginning = begin()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, YARDSTICK_FILE)
        reference = _reference(task, specification)
        record = measure_yardstick(reference, specification.profile, path)
        if not task.trained:
            record["reference"] = reference.fingerprint
        bounds = _bounds(reference, specification, record)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[StudyDirection[way.upper()] for _, way in specification.objectives],
            )
        except DuplicatedStudyError as error:
            raise StudyError(f"study {name!r} is being made by another process; run this again") from error
        try:
            _fill(study, space, specification, beginning, record, bounds, path)
        except BaseException:  # even Ctrl-C must not leave a name that can be neither run nor resumed
            optuna.delete_study(study_name=name, storage=storage)
            raise
    return study


def artifact_folder(study: optuna.Study) -> Path:
    """Where the study's artifacts live."""
    stored = specification_of(study).artifacts
    if stored is not None:
        return Path(stored)
    url = database_url(study)
    if url is None:
        raise StudyError(f"study {study.study_name!r} is not in a database, so it has no artifacts")
    return artifacts_folder(url)


def load_study(storage: RDBStorage, name: str | None = None) -> optuna.Study:
    """The study of that name, or the only one.

    Raises:
        StudyError: When there is none, or several and no name was given; the text lists the names.
    """
    names = optuna.get_all_study_names(storage)
    if name is None:
        if len(names) != 1:
            raise StudyError(f"the database holds {_listed(names)}; name one with --study")
        name = names[0]
    study = _find(storage, name)
    if study is None:
        raise StudyError(f"there is no study {name!r} in the database; it holds {_listed(names)}")
    if _is_cut_off(study):
        raise StudyError(f"the making of study {name!r} was cut off; `petra run` makes it anew")
    return study


def specification_of(study: optuna.Study) -> Specification:
    """What the study was made with.

    Raises:
        StudyError: When it was not made by petra, or its making was interrupted.
    """
    data = study.user_attrs.get(attributes.SPECIFICATION)
    if data is None:
        raise StudyError(
            f"study {study.study_name!r} has no petra specification: it was made by something else, or its "
            "creation was interrupted; start it under another name"
        )
    return Specification.from_dict(data)


def check_same(study: optuna.Study, specification: Specification) -> None:
    """Refuse to mix trials that cannot be compared.

    Raises:
        StudyError: Naming what differs.
    """
    differences = specification_of(study).differences(specification)
    if differences:
        raise StudyError(
            f"study {study.study_name!r} exists with another specification ({'; '.join(differences)}); "
            "give another --study name, or continue it with `petra resume`"
        )


def measure_yardstick(task: Task, profile: DeviceProfile, path: Path) -> dict[str, Any]:
    """Lower the original to ``path`` in FP32 and measure it; PyTorch eager is reported beside it.

    Returns:
        ``values`` of the original by name, ``yardstick``, ``eager`` latency and throughput, ``host``,
        ``sha256``, ``convolutions``: both forms of one-dimensional ones, None where it has none.

    Raises:
        TaskError: When the original cannot be exported, run or measured.
    """
    try:
        original, forms = lower_original(task, profile, path)
        with MeasuringProcess(profile, path, to_feeds(task.example)) as process:
            yardstick = process.baseline()
    except TrialError as error:
        raise TaskError(f"the original model of task {task.name!r} cannot be deployed: {error}") from error
    return {
        "values": {
            task.metric.name: original.quality,
            **yardstick.own_values(),
            "size_bytes": float(original.artifact.size_bytes),
            "train_s": 0.0,
            **counted(task.model, Pipeline(), task),
        },
        "yardstick": yardstick.to_dict(),
        "eager": _eager(task, profile),
        "host": profile.host(),
        "sha256": original.artifact.sha256,
        "convolutions": forms.to_dict() if forms else None,
    }


def yardstick_of(study: optuna.Study) -> Yardstick:
    """The study's frozen yardstick."""
    record = study.user_attrs[attributes.YARDSTICK]
    if "yardstick" in record:
        return Yardstick.from_dict(record["yardstick"])
    # A study of the time when there was one throughput batch and nothing else was measured.
    values, batches = record["values"], specification_of(study).profile.throughput_batches
    return Yardstick(values["latency_ms"], {batches[0]: values["throughput_per_s"]})


def lower_original(task: Task, profile: DeviceProfile, path: Path) -> tuple[Lowered, Forms | None]:
    """Lower the original to ``path`` in FP32 for the yardstick's runtime, in the form that is faster there.

    Else every candidate would win by its form.

    Raises:
        TrialError: When it cannot be exported, run or measured.
    """
    runtime, device = profile.yardstick_place

    def lowered(form: str) -> Lowered:
        where = path if form == SERIES else path.with_stem(f"{path.stem}-{form}")
        artifact = lower(task.model, task.example, where, convolutions=form, runtime=runtime, device=device)
        threads = torch.get_num_threads()
        return Lowered(artifact, quality_of(where, task, task.selection, threads, runtime, device))

    first = lowered(SERIES)
    if first.artifact.lowering["convolutions"] is None:
        return first, None
    yardstick = path.with_stem(f"{path.stem}-exported")  # the form that does not ship is removed
    shutil.copyfile(path, yardstick)
    alone = dataclasses.replace(profile, runtime=runtime)
    with MeasuringProcess(alone, yardstick, to_feeds(task.example)) as process:
        taken, _, forms = faster_form(first, lowered, process.measure, process.baseline().values)
    yardstick.unlink()
    if taken is not first:
        taken.artifact.path.replace(path)
    return dataclasses.replace(taken, artifact=dataclasses.replace(taken.artifact, path=path)), forms


def fetch_yardstick(study: optuna.Study, folder: Path) -> Path:
    """The yardstick's file, copied out of the artifact store.

    Raises:
        StudyError: As ``fetch``.
    """
    path = folder / YARDSTICK_FILE
    fetch(study, study.user_attrs[attributes.YARDSTICK]["artifact_id"], path)
    return path


def fetch(study: optuna.Study, artifact_id: str, path: Path) -> None:
    """Copy an artifact of the study to ``path``.

    Raises:
        StudyError: When the artifact store does not hold it.
    """
    folder = artifact_folder(study)
    try:
        download_artifact(
            artifact_store=FileSystemArtifactStore(str(folder)),
            file_path=str(path),
            artifact_id=artifact_id,
        )
    except (ArtifactNotFound, FileNotFoundError) as error:
        raise StudyError(
            f"artifact {artifact_id} is not in {folder}; was the folder moved or emptied?"
        ) from error


def _fill(
    study: optuna.Study,
    space: SearchSpace,
    specification: Specification,
    beginning: Beginning,
    record: dict[str, Any],
    bounds: Bounds,
    path: Path,
) -> None:
    """Everything that makes a row in the database a study of ours; the specification comes last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([name for name, _ in specification.objectives])
    study.set_user_attr(attributes.SPECIFICATION, specification.to_dict())
    folder = artifact_folder(study)
    folder.mkdir(parents=True, exist_ok=True)
    record["artifact_id"] = upload_artifact(
        artifact_store=FileSystemArtifactStore(str(folder)), file_path=str(path), study_or_trial=study
    )
    study.set_user_attr(attributes.YARDSTICK, record)
    study.set_user_attr(BOUNDS, bounds.to_dict())
    for key, value in beginning.attributes.items():
        study.set_user_attr(key, value)
    for pipeline in (*controls(space, specification.budget), *beginning.pipelines):
        study.enqueue_trial(encode(pipeline, space))
    study.set_user_attr(attributes.COMPLETE, True)


def _bounds(task: Task, specification: Specification, record: dict[str, Any]) -> Bounds:
    """Scale of the objectives: the original's values, and where those are 0 by nature the most there can be.

    Raises:
        StudyError: When this machine cannot measure an objective, or what a limit is on.
        TaskError: When the original cannot be trained to find the scale of ``train_s``.
    """
    values = dict(record["values"])
    names = specification.quantities
    needed = [*names, *(name for name, _ in specification.limits.items() if name != QUALITY_DROP)]
    if missing := [name for name in needed if name not in values]:
        why = (
            record["yardstick"]["energy_source"] if missing[0] == "energy_j" else "this system does not tell"
        )
        raise StudyError(f"{missing[0]} can be neither an objective nor limited here: {why}")
    if "depth" in names:
        values["depth"] = specification.space["max_length"] + 1
    if "train_s" in names:
        try:
            values["train_s"] = training_price(task, specification.budget)
        except TrialError as error:
            raise TaskError(f"the original model of task {task.name!r} cannot be trained: {error}") from error
    reference = (values[specification.metric], *(values[name] for name in names))
    return Bounds(reference, (False, *(quantity(name).by_ratio for name in names)))


def _reference(task: Task, specification: Specification) -> Task:
    try:
        return with_reference(task, specification)
    except TrialError as error:
        raise TaskError(f"the model of task {task.name!r} cannot be trained: {error}") from error


def _find(storage: RDBStorage, name: str) -> optuna.Study | None:
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(storage=storage, study_name=name)


def _is_cut_off(study: optuna.Study) -> bool:
    attrs = study.user_attrs
    return attributes.SPECIFICATION in attrs and attributes.COMPLETE not in attrs


def _listed(names: list[str]) -> str:
    return f"the studies {', '.join(sorted(names))}" if names else "no study"


def _eager(task: Task, profile: DeviceProfile) -> dict[str, float]:
    latency_s = _eager_seconds(task, profile.latency_batch, profile.threads)
    batches = profile.throughput_batches
    rates = [batch / _eager_seconds(task, batch, profile.threads) for batch in batches]
    return {"latency_ms": 1e3 * latency_s, "throughput_per_s": max(rates)}


def _eager_seconds(task: Task, batch: int, threads: int) -> float:
    inputs = _tile(task.example, batch)
    timer = Timer(
        "forward(model, inputs)",
        num_threads=threads,
        globals={"forward": _eager_forward, "model": task.model, "inputs": inputs},
    )
    return float(timer.blocked_autorange(min_run_time=0.5).median)


def _eager_forward(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    with torch.inference_mode():
        return forward(model, inputs)


def _tile(inputs: Inputs, batch: int) -> Inputs:
    times = -(-batch // batch_size_of(inputs))

    def tile(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat(times, *([1] * (tensor.dim() - 1)))

    if isinstance(inputs, dict):
        return take({name: tile(value) for name, value in inputs.items()}, batch)
    return take(tuple(tile(value) for value in inputs), batch)
