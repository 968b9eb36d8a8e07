"""The example in the docstring of every public name runs after ``from petra_optuna import *``.

Beside the public names examples use ``numpy`` as ``np``, ``Path``, a ``task`` with its ``model``, and a
finished ``study`` of that task, in ``storage/mine.db``.
"""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

import petra_optuna
from petra_optuna import Task

PUBLIC = {name: getattr(petra_optuna, name) for name in dir(petra_optuna)}
WITH_DOCSTRINGS = {
    name: public for name, public in PUBLIC.items() if inspect.isclass(public) or inspect.isfunction(public)
}
"""Constants have no docstring that ``help`` would show."""


@pytest.fixture(scope="module")
def home(
    tiny_task: Task,
    tmp_path_factory: pytest.TempPathFactory,
    measured_shortly: None,
    pytestconfig: pytest.Config,
) -> Iterator[Path]:
    """A folder with a finished study, ``mine`` in ``storage/mine.db``, as the examples assume."""
    folder = tmp_path_factory.mktemp("examples")
    assert pytestconfig.cache is not None
    (folder / "bases").symlink_to(pytestconfig.cache.mkdir("petra_digits"))  # a base is trained once for all
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        petra_optuna.optimize(tiny_task, trials=5, storage="sqlite:///storage/mine.db", name="mine")
        yield folder


@pytest.mark.parametrize("name", WITH_DOCSTRINGS)
def test_the_example_of_a_public_name_runs(name: str, home: Path, tiny_task: Task) -> None:
    text = inspect.getdoc(WITH_DOCSTRINGS[name]) or ""
    section = text.partition("\nExample:\n")[2]
    study = optuna.load_study(storage="sqlite:///storage/mine.db", study_name="mine")
    given = {**PUBLIC, "np": np, "Path": Path, "task": tiny_task, "study": study, "model": tiny_task.model}
    example = doctest.DocTestParser().get_doctest(section, given, name, None, None)
    assert example.examples, f"{name} has no example"
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example, out=printed.append).failed == 0, "".join(printed)
