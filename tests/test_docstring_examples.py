"""The example in the docstring of every public name runs after ``from petra_optuna import *``.

Beside the public names examples use ``numpy`` as ``np``, ``Path``, a ``task`` with its ``model``, a finished
``study`` of that task in ``storage/mine.db``, a ``workload`` on it and a finished tuning study ``tuned`` of
it in ``storage/tune.db``. ``words`` is a folder of recordings. A formula stands in for measuring settings.
"""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from support.serving import Served, fake_servers
from support.wav_files import write_tones
from torch import nn

import petra_optuna
from petra_optuna import Task, TuningBudget, Workload

PUBLIC = {name: getattr(petra_optuna, name) for name in dir(petra_optuna)}
WITH_DOCSTRINGS = {
    name: public for name, public in PUBLIC.items() if inspect.isclass(public) or inspect.isfunction(public)
}
"""Constants have no docstring that ``help`` would show."""


@pytest.fixture(scope="module")
def workload(tiny_task: Task) -> Workload:
    """Perceptrons of one width on the small task, so that one search for a setting answers for all."""

    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 4))

    return Workload("mine", tiny_task, build, {"width": IntDistribution(16, 16)})


@pytest.fixture(scope="module")
def home(
    tiny_task: Task,
    workload: Workload,
    tmp_path_factory: pytest.TempPathFactory,
    measured_shortly: None,
    pytestconfig: pytest.Config,
) -> Iterator[Path]:
    """A folder with the two studies and the recordings that the examples assume."""
    folder = tmp_path_factory.mktemp("examples")
    assert pytestconfig.cache is not None
    (folder / "bases").symlink_to(pytestconfig.cache.mkdir("petra_digits"))  # a base is trained once for all
    with pytest.MonkeyPatch.context() as patch, fake_servers(Served()):
        patch.chdir(folder)
        one = petra_optuna.Budget(epochs=1)
        petra_optuna.optimize(tiny_task, trials=5, budget=one, storage="storage/mine.db", name="mine")
        short = TuningBudget(max_epochs=2)
        petra_optuna.tune(
            workload, trials=1, budget=short, max_batch=2, storage="storage/tune.db", name="tuned"
        )
        write_tones(folder / "words", (250, 500), 30)
        yield folder


@pytest.mark.parametrize("name", WITH_DOCSTRINGS)
def test_the_example_of_a_public_name_runs(
    name: str, home: Path, tiny_task: Task, workload: Workload
) -> None:
    text = inspect.getdoc(WITH_DOCSTRINGS[name]) or ""
    section = text.partition("\nExample:\n")[2]
    study, tuned = (
        optuna.load_study(storage=f"sqlite:///storage/{file}.db", study_name=stored)
        for file, stored in (("mine", "mine"), ("tune", "tuned"))
    )
    given = {**PUBLIC, "np": np, "Path": Path, "task": tiny_task, "study": study, "model": tiny_task.model}
    given |= {"workload": workload, "tuned": tuned}
    example = doctest.DocTestParser().get_doctest(section, given, name, None, None)
    assert example.examples, f"{name} has no example"
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example, out=printed.append).failed == 0, "".join(printed)
