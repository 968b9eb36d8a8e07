"""Laws that every built-in workload keeps; a new one is one row of ``DATA``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from support.detection_folders import content, write_coco
from support.image_files import write_images
from support.news_files import write_news
from support.wav_files import write_tones

from petra_optuna.edgetune import Workload
from petra_optuna.edgetune.workloads import WORKLOADS, build_workload
from petra_optuna.errors import TaskError
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.tasks.checks import check_evaluation, check_training

DATA: dict[str, Callable[[Path], Path]] = {
    "ic": write_images,
    "nlp": write_news,
    "od": lambda root: write_coco(root, content()),
    "sr": lambda root: write_tones(root, (250, 500), 30),
}


@pytest.fixture(scope="module", params=DATA)
def workload(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    folder = tmp_path_factory.mktemp(request.param)
    root = DATA[request.param](folder / "data")
    return build_workload(request.param, data_root=root, cache_dir=folder, seed=3)


def test_every_workload_has_a_row() -> None:
    assert set(WORKLOADS) == set(DATA)


def _parameter(workload: Workload) -> tuple[str, Sequence[Any]]:
    """The one parameter of the architecture, and its choices or its ends."""
    ((name, space),) = workload.model_space.items()
    if isinstance(space, CategoricalDistribution):
        return name, space.choices
    assert isinstance(space, FloatDistribution | IntDistribution)
    return name, (space.low, space.high)


def test_every_network_of_its_space_fits_the_data(workload: Workload) -> None:
    name, choices = _parameter(workload)
    expected = forward(workload.task.model, workload.task.example).shape
    for choice in choices:
        network = workload.network({name: choice}, seed=0).eval()
        with torch.no_grad():
            assert forward(network, workload.task.example).shape == expected
        check_training(network, workload.task.train, workload.task.loss, None)


def test_choices_differ_in_size_and_ends_of_a_range_do_not(workload: Workload) -> None:
    name, choices = _parameter(workload)
    sizes = [count_parameters(workload.network({name: choice}, seed=0)) for choice in choices]
    is_categorical = isinstance(workload.model_space[name], CategoricalDistribution)
    assert sizes == (sorted(set(sizes)) if is_categorical else [sizes[0]] * len(sizes))


def test_its_task_is_that_of_the_first_network_and_passes_the_checks(workload: Workload) -> None:
    task = workload.task
    assert not task.trained
    name, choices = _parameter(workload)
    first = workload.network({name: choices[0]}, seed=3).eval()
    torch.testing.assert_close(
        forward(first, task.example), forward(task.model, task.example), rtol=0, atol=0
    )
    other = workload.network({name: choices[0]}, seed=4).eval()
    assert not torch.equal(forward(other, task.example), forward(task.model, task.example))
    check_evaluation(private_copy(task.model), task.selection, task.metric)


def test_its_batch_sizes_are_those_of_edgetune(workload: Workload) -> None:
    assert set(workload.training_space) == {"batch_size", "learning_rate"}
    assert workload.training_space["batch_size"] == IntDistribution(32, 512, log=True)


def test_an_unknown_workload_names_the_known() -> None:
    with pytest.raises(TaskError, match="unknown workload 'speech'; known: ic, nlp, od, sr"):
        build_workload("speech")
