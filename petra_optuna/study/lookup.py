"""Finding a study again, and what it keeps beside the database."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, download_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import RDBStorage

from petra_optuna.errors import StudyError
from petra_optuna.samplers import database_url
from petra_optuna.study import record as attributes
from petra_optuna.study.specification import Specification
from petra_optuna.study.storage import artifacts_folder


def load_study(storage: RDBStorage, name: str | None = None) -> optuna.Study:
    """The study of that name, or the only one.

    Raises:
        StudyError: When there is none, or several and no name was given; the text lists the names.
    """
    names = optuna.get_all_study_names(storage)
    if name is None:
        if len(names) != 1:
            advice = "name one with --study" if names else "start one with petra run"
            raise StudyError(f"the database holds {_listed(names)}; {advice}")
        name = names[0]
    study = find(storage, name)
    if study is None:
        raise StudyError(f"there is no study {name!r} in the database; it holds {_listed(names)}")
    if is_cut_off(study):
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


def artifact_folder(study: optuna.Study) -> Path:
    """Where the study's artifacts live."""
    stored = specification_of(study).artifacts
    if stored is not None:
        return Path(stored)
    url = database_url(study)
    if url is None:
        raise StudyError(f"study {study.study_name!r} is not in a database, so it has no artifacts")
    return artifacts_folder(url)


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


def find(storage: RDBStorage, name: str) -> optuna.Study | None:
    """The study of that name, its making cut off or not; None where there is none."""
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(storage=storage, study_name=name)


def is_cut_off(study: optuna.Study) -> bool:
    """Whether the study's making ended before it was whole."""
    attrs = study.user_attrs
    return attributes.SPECIFICATION in attrs and attributes.COMPLETE not in attrs


def _listed(names: list[str]) -> str:
    return f"the studies {', '.join(sorted(names))}" if names else "no study"
