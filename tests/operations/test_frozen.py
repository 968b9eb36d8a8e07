"""What is frozen stays frozen, whatever node comes, and norms in evaluation mode keep their statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.nn.pruning import weight_scores
from petra_optuna.operations import (
    Context,
    DropBlocks,
    LowRank,
    Prune,
    QuantizeAware,
    RegularizedTrain,
    Train,
)
from petra_optuna.operations.training import plain_loss
from petra_optuna.pipeline import Operation, Recipe
from petra_optuna.tasks import Task


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 64)
        self.norm, self.second_norm = nn.BatchNorm1d(64), nn.BatchNorm1d(64)
        self.wide, self.middle, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.stem(inputs)).relu()
        hidden = self.second_norm(self.wide(hidden)).relu()
        return self.head(self.middle(hidden).relu())


def _task(model: nn.Module) -> Task:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(96, 16, generator=generator), torch.arange(96) % 4
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    return Task.from_loaders(model, loader, apart(loader), metric="accuracy", trained=True)


def _frozen_net() -> nn.Module:
    torch.manual_seed(0)
    model = _Net()
    with torch.no_grad():
        model.wide.weight.copy_(torch.randn(64, 4) @ torch.randn(4, 64) / 16)
    for part in (model.stem, model.norm, model.wide):
        part.requires_grad_(False)
    return model


def _context(task: Task, **recipe: object) -> Context:
    return Context(task, Recipe(lr=1e-2, batch_size=32, distillation_weight=0.0, **recipe), seed=1, epochs=2)  # type: ignore[arg-type]


NODES: dict[str, Operation] = {
    "train": Train(epochs=1),
    "regularized_train": RegularizedTrain(epochs=1),
    "qat": QuantizeAware(epochs=1),
    "low_rank": LowRank(rule="share", kept_weights=0.3),
    "prune": Prune(),
    "drop_blocks": DropBlocks(),
}


@pytest.mark.parametrize("name", NODES)
def test_frozen_parts_neither_thaw_nor_move_in_training(name: str) -> None:
    task = _task(_frozen_net())
    context = _context(task, orthogonal=True, hoyer=True, norm=True, sparsity=True)
    applied = NODES[name].apply(task.model, context).model
    trained = [part for part, value in applied.named_parameters() if value.requires_grad]
    assert not [part for part in trained if part.split(".")[0] in ("stem", "norm", "wide")]
    assert [part for part in trained if part.split(".")[0] in ("middle", "head")]
    before = copy.deepcopy(applied.state_dict())
    after = Train(epochs=1).apply(applied, context).model.state_dict()
    still = [part for part in before if part.split(".")[0] in ("stem", "norm", "wide")]
    assert all(torch.equal(after[part], before[part]) for part in still)
    assert any(not torch.equal(after[part], before[part]) for part in before if part.startswith("head"))
    if name in ("train", "regularized_train", "qat", "low_rank"):
        expected = task.model.state_dict()
        assert torch.equal(before["norm.running_mean"], expected["norm.running_mean"])
        assert torch.equal(before["norm.weight"], expected["norm.weight"])


def test_a_norm_that_the_user_put_in_evaluation_mode_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    model = _Net().train()
    model.norm.eval()
    model.norm.running_mean.fill_(0.7)  # type: ignore[union-attr]
    task = _task(model)
    assert task.fixed_norms == ("norm",)
    for node in (Train(epochs=1), LowRank(rule="share", kept_weights=0.3), Prune()):
        state = node.apply(task.model, _context(task)).model.state_dict()
        assert torch.equal(state["norm.running_mean"].unique(), torch.tensor([0.7]))
        assert not torch.equal(state["second_norm.running_mean"], torch.zeros(64))
    whole = _task(_Net().eval())
    assert whole.fixed_norms == ()
    assert whole.fingerprint != _task(_frozen_net()).fingerprint


def test_frozen_weights_are_scored_by_their_gradient_as_if_they_were_not() -> None:
    task, thawed = _task(_frozen_net()), _task(_frozen_net().requires_grad_(True))

    def scores(task: Task, criterion: str) -> list[Tensor]:
        context = _context(task)
        batches = list(context.calibration_batches(32, 16))
        found = weight_scores(
            task.model,
            criterion,  # type: ignore[arg-type]
            batches=batches,
            loss=lambda model, batch: plain_loss(model, batch, context),
            seed=0,
        )
        return list(found.values())

    for criterion in ("taylor", "hessian"):
        pairs = list(zip(scores(task, criterion), scores(thawed, criterion), strict=True))
        assert all(torch.allclose(mine, other) for mine, other in pairs)
        assert any(mine.any() for mine, _ in pairs[:2])
    assert not task.model.get_submodule("wide").weight.requires_grad  # type: ignore[union-attr]


def test_frozen_recurrent_layers_stay_frozen_as_factors() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.GRU(16, 32, batch_first=True), nn.Linear(32, 4)
            self.layer.requires_grad_(False)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.layer(inputs.unsqueeze(1))[0][:, -1])  # type: ignore[no-any-return]

    task = _task(Recurrent())
    reduced = LowRank(rule="share", kept_weights=0.3).apply(task.model, _context(task)).model
    assert "weight_hh_l0_left" in dict(reduced.get_submodule("layer").named_parameters())
    trained = {name for name, value in reduced.named_parameters() if value.requires_grad}
    assert all(name.startswith("head") for name in trained)
    regular = RegularizedTrain(epochs=1).apply(task.model, _context(task, orthogonal=True)).model
    kept = regular.get_submodule("layer").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in task.model.layer.state_dict().items())  # type: ignore[union-attr,operator]
