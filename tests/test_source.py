"""Identity of functions and classes: the user's code counts by its source, our own by its name."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

from petra_optuna.models import ResidualNet
from petra_optuna.nn.normalize import Normalize
from petra_optuna.operations import Prune
from petra_optuna.source import IDENTITIES, source_sha256

FIRST = 'def loss(outputs, targets):\n    """Mean."""\n    return (outputs - targets).mean()\n'
OTHERS = {
    "what it computes": FIRST.replace("mean()", "sum()"),
    "its docstring": FIRST.replace("Mean", "The mean"),
    "its name": FIRST.replace("loss", "other"),
}


def _loss(folder: Path, text: str) -> Any:
    """The function of a user's module that holds this text."""
    folder.mkdir()
    path = folder / "losses.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("losses", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(value for value in vars(module).values() if inspect.isfunction(value))


@pytest.mark.parametrize("change", OTHERS)
def test_the_users_code_counts_by_its_source(tmp_path: Path, change: str) -> None:
    texts = {"before": FIRST, "again": FIRST, "after": OTHERS[change]}
    before, again, after = (source_sha256(_loss(tmp_path / name, text)) for name, text in texts.items())
    assert before == again != after


def test_an_edit_of_our_own_code_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved lines and mended docstrings are not another task; the cache keys know the code itself."""
    ours = [ResidualNet, Normalize, Prune, Prune().apply, functools.partial(Normalize, [0.5], [0.5])]
    before = [source_sha256(thing) for thing in ours]
    monkeypatch.setattr(inspect, "getsource", lambda thing: "class Edited: ...")
    assert [source_sha256(thing) for thing in ours] == before
    assert len(set(before)) == len(before)


def test_every_identity_is_that_of_something_that_exists() -> None:
    """Whoever moves or renames it moves its entry along."""
    for module, digests in IDENTITIES.items():
        for name, digest in digests.items():
            assert source_sha256(getattr(importlib.import_module(f"petra_optuna.{module}"), name)) == digest
            assert len(digest) == 64


def test_names_tell_our_functions_apart() -> None:
    assert source_sha256(Prune.apply) != source_sha256(Prune.canonical)


def test_what_has_no_module_counts_by_its_name() -> None:
    assert tuple.__new__.__module__ is None
    assert source_sha256(tuple.__new__) != source_sha256([].append)
