"""Laws that every built-in workload keeps; a new one is one row of ``DATA``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from optuna.distributions import CategoricalDistribution, IntDistribution
from support.image_files import write_images
from support.wav_files import write_tones

from petra_optuna.edgetune import Workload
from petra_optuna.edgetune.workloads import WORKLOADS, build_workload
from petra_optuna.errors import TaskError
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import batch_size_of, forward
from petra_optuna.tasks.checks import check_evaluation, check_training

DATA: dict[str, Callable[[Path], Path]] = {
    "ic": write_images,
    "sr": lambda root: write_tones(root, (250, 500), 30),
}


@pytest.fixture(scope="module", params=DATA)
def workload(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    folder = tmp_path_factory.mktemp(request.param)
    root = DATA[request.param](folder / "data")
    return build_workload(request.param, data_root=root, cache_dir=folder, seed=3)


def test_every_workload_has_a_row() -> None:
    assert set(WORKLOADS) == set(DATA)


def test_every_network_of_its_space_is_another_and_fits_the_data(workload: Workload) -> None:
    ((name, space),) = workload.model_space.items()
    assert isinstance(space, CategoricalDistribution)
    networks = [workload.network({name: choice}, seed=0).eval() for choice in space.choices]
    for network in networks:
        with torch.no_grad():
            outputs = forward(network, workload.task.example)
        assert outputs.shape == (batch_size_of(workload.task.example), len(workload.task.labels))
    sizes = [count_parameters(network) for network in networks]
    assert sizes == sorted(set(sizes))


def test_its_task_is_that_of_the_first_network_and_passes_the_checks(workload: Workload) -> None:
    task = workload.task
    assert not task.trained
    ((name, space),) = workload.model_space.items()
    assert isinstance(space, CategoricalDistribution)
    first = workload.network({name: space.choices[0]}, seed=3).state_dict()
    assert all(torch.equal(value, first[key]) for key, value in task.model.state_dict().items())
    model = private_copy(task.model)
    check_evaluation(model, task.selection, task.metric)
    check_training(model, task.train, task.loss, None)


def test_its_batch_sizes_are_those_of_edgetune(workload: Workload) -> None:
    assert set(workload.training_space) == {"batch_size", "learning_rate"}
    assert workload.training_space["batch_size"] == IntDistribution(32, 512, log=True)


def test_an_unknown_workload_names_the_known() -> None:
    with pytest.raises(TaskError, match="unknown workload 'speech'; known: ic, sr"):
        build_workload("speech")
