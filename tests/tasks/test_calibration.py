from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.operations import Context, LowRank, Prune
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Split, Task
from petra_optuna.tasks.calibration import calibration_batches, drawn


def _classes(split: Split, limit: int) -> list[int]:
    batches = calibration_batches(split, limit, 64)
    return torch.cat([targets for _, targets in batches]).bincount().tolist()


@pytest.mark.parametrize("order", ["periodic", "sorted"])
def test_each_class_has_its_share_whatever_the_order_of_the_file(order: str) -> None:
    """Evenly spaced rows of a file with a period would be of one class."""
    targets = torch.arange(5000) % 10
    targets = targets.sort().values if order == "sorted" else targets
    split = drawn(Split(TensorDataset(torch.zeros(5000, 1), targets)))
    assert len(split) == 512
    assert min(_classes(split, 512)) >= 50
    assert min(_classes(split, 100)) >= 9


def test_a_rare_class_has_a_sample() -> None:
    targets = (torch.arange(5000) == 4321).long()
    split = drawn(Split(TensorDataset(torch.zeros(5000, 1), targets)))
    assert _classes(split, 64)[1] == 1


def test_a_task_from_loaders_draws_of_each_class_its_share() -> None:
    """Loaders unpack through a function of ours: the classes of the data set must be known all the same."""
    inputs = torch.randn(3100, 6, generator=torch.Generator().manual_seed(0))
    targets = (torch.arange(3100) % 10).sort().values
    train, selection = (
        DataLoader(TensorDataset(inputs[rows], targets[rows]), batch_size=64)
        for rows in (slice(None, None, 2), slice(1, None, 62))
    )
    task = Task.from_loaders(nn.Linear(6, 10), train, selection, metric="accuracy")
    assert min(_classes(task.calibration, 512)) >= 50
    assert min(_classes(task.calibration, 100)) >= 9


@pytest.mark.parametrize(("samples", "sizes"), [(64, [64]), (65, [64]), (129, [64, 64]), (130, [64, 64, 2])])
def test_no_batch_is_of_one_sample(samples: int, sizes: list[int]) -> None:
    split = drawn(Split(TensorDataset(torch.zeros(samples, 1), torch.zeros(samples).long())))
    assert [len(targets) for _, targets in calibration_batches(split, 256, 64)] == sizes


def test_batch_norms_count_samples_and_not_batches() -> None:
    inputs = torch.randn(80, 5, generator=torch.Generator().manual_seed(0))
    inputs[64:] += 10
    model = nn.Sequential(nn.BatchNorm1d(5)).eval()
    reestimate_batch_norm(model, [(inputs[:64],), (inputs[64:],)])
    torch.testing.assert_close(model[0].running_mean, inputs.mean(0))


class _Cropped(Dataset[Any]):
    """Images under a random transform, where there is one."""

    def __init__(self, count: int, transform: Any = None) -> None:
        generator = torch.Generator().manual_seed(count)
        self.images = torch.randn(count, 3, 8, 8, generator=generator)
        self.transform = transform
        self.reads = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        image = self.images[index]
        return image if self.transform is None else self.transform(image), index % 3


def _rolled(image: Tensor) -> Tensor:
    return torch.roll(image, tuple(torch.randint(-3, 4, (2,)).tolist()), (1, 2))


def _doubled(image: Tensor) -> Tensor:
    return 2 * image


class _Plain(_Cropped):
    """Another class than the training data's, so that its transform says nothing of that one."""


def _task(train: Dataset[Any], selection: Dataset[Any]) -> Task:
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU())
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 3))
    return Task.from_loaders(model, DataLoader(train, 32), DataLoader(selection, 32), metric="accuracy")


@pytest.mark.parametrize(
    "node", [Prune(criterion="taylor"), Prune(), LowRank(rule="share", kept_weights=0.5)]
)
def test_nodes_are_functions_of_their_seed_though_the_data_set_draws(node: Any) -> None:
    states = []
    for _ in range(2):
        task = _task(_Cropped(150, _rolled), _Plain(60))
        torch.rand(5)
        context = Context(task=task, recipe=Recipe(batch_size=32), seed=5, epochs=1)
        model = node.apply(task.model, context).model
        states.append(torch.cat([value.reshape(-1).double() for value in model.state_dict().values()]))
    assert torch.equal(*states)


def test_calibration_reads_each_sample_once_and_leaves_randomness_alone() -> None:
    train = _Cropped(150, _rolled)
    task = _task(train, _Plain(60))
    before, state = train.reads, torch.get_rng_state()
    read = [list(calibration_batches(task.calibration, 256, size)) for size in (64, 32)]
    assert train.reads - before == 150
    assert torch.equal(torch.get_rng_state(), state)
    one, other = (torch.cat([inputs[0] for inputs, _ in batches]) for batches in read)
    assert torch.equal(one, other)


def test_calibration_has_the_transform_of_selection_where_that_is_known() -> None:
    whole = _Cropped(150, _rolled)
    task = _task(Subset(whole, range(100)), Subset(_Cropped(60, _doubled), range(50)))
    inputs, _ = next(task.calibration.batches(100))
    doubled = {tuple(image.flatten().tolist()) for image in 2 * whole.images[:100]}
    assert {tuple(image.flatten().tolist()) for image in inputs[0]} == doubled
    assert whole.transform is _rolled


def test_evaluations_agree_though_the_selection_data_draws() -> None:
    task = _task(_Cropped(150), _Cropped(90, _rolled))

    def evaluate() -> float:
        return task.evaluate(lambda inputs: task.model(*inputs).detach().numpy(), task.selection)

    assert evaluate() == evaluate()
