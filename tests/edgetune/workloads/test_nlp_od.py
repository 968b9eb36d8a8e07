from __future__ import annotations

from pathlib import Path

import pytest
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from support.detection_folders import content, write_yolo

from petra_optuna.edgetune.workload import Workload
from petra_optuna.edgetune.workloads import nlp, od
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.training import run_epochs


@pytest.fixture(params=["nlp", "od"])
def workload(request: pytest.FixtureRequest, tmp_path: Path) -> Workload:
    if request.param == "od":
        write_yolo(tmp_path / "data", content())
        return od.build(data_root=tmp_path / "data", cache_dir=tmp_path / "cache", seed=0)
    rows = [f"{topic},title {topic},word{topic} {number}\n" for number in range(12) for topic in range(1, 5)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("".join(rows))
    return nlp.build(data_root=tmp_path, cache_dir=tmp_path / "cache", seed=0)


def test_every_network_of_the_space_trains_on_the_task(workload: Workload) -> None:
    (name, distribution), *others = workload.model_space.items()
    assert not others
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    task = workload.task
    for value in (distribution.low, distribution.high):
        network = workload.network({name: value}, seed=1)
        assert forward(network, task.example).shape[1:] == forward(task.model, task.example).shape[1:]
        before = [parameter.clone() for parameter in network.parameters()]
        run_epochs(
            network,
            lambda epoch: task.train.batches(8, shuffle_seed=epoch),
            lambda inputs, targets, network=network: task.loss(forward(network, inputs), targets),
            torch.optim.AdamW(network.parameters(), lr=1e-3),
            schedule="constant",
            epochs=1,
            steps_per_epoch=task.train.steps(8),
        )
        moved = [not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True)]
        assert all(moved)


def test_the_seed_decides_the_weights_and_the_task_is_untrained(workload: Workload) -> None:
    parameters = {name: distribution.high for name, distribution in workload.model_space.items()}  # type: ignore[attr-defined]
    one, same, other = (workload.network(parameters, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert not workload.task.trained
