from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import check_parity, export_onnx
from petra_optuna.errors import OperationFailed
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.low_rank import (
    FactoredRecurrent,
    LowRankPair,
    break_even_rank,
    decompose,
    singular_values_of,
    weight_matrix,
)
from petra_optuna.nn.low_rank.pairs import pair_factors
from petra_optuna.nn.low_rank.ranks import choose_rank, round_rank
from petra_optuna.operations import Context, LowRank, Prune
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task

NODES = {
    "energy": LowRank(rule="energy", kept_energy=0.7),
    "singular_values": LowRank(rule="singular_values", kept_singular_values=0.4),
    "share": LowRank(rule="share", kept_weights=0.4),
}


def context_of(task: Task) -> Context:
    return Context(task, Recipe(), seed=0, epochs=0)


def task_of(model: nn.Module) -> Task:
    data = TensorDataset(torch.randn(12, 16), torch.arange(12) % 3)
    loader = DataLoader(data, batch_size=4)
    return Task.from_loaders(model, loader, apart(loader), metric="accuracy")


@pytest.fixture
def correlated_task(tiny_task: Task) -> Task:
    """The tiny task with weights of falling spectra, where every rule finds something to save."""
    model = copy.deepcopy(tiny_task.model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                u, s, vh = torch.linalg.svd(module.weight.flatten(1), full_matrices=False)
                s = s[0] * 0.7 ** torch.arange(len(s))
                module.weight.copy_((u * s @ vh).reshape(module.weight.shape))
    return Task(
        "correlated",
        model,
        tiny_task.train,
        tiny_task.calibration,
        tiny_task.selection,
        None,
        tiny_task.metric,
    )


@pytest.mark.parametrize("rule", NODES)
def test_parameters_fall_and_the_report_equals_a_recount(correlated_task: Task, rule: str) -> None:
    model = correlated_task.model
    applied = NODES[rule].apply(model, context_of(correlated_task))
    report = applied.report
    assert report["changed"] is True
    assert report["parameters_before"] == count_parameters(model)
    assert report["parameters_after"] == count_parameters(applied.model) < count_parameters(model)
    example = correlated_task.example
    assert report["macs_before"] == count_macs(model, example)
    assert report["macs_after"] == count_macs(applied.model, example) < report["macs_before"]
    pairs = {n: [None, m.rank] for n, m in applied.model.named_modules() if isinstance(m, LowRankPair)}
    assert report["ranks"] == pairs
    forward(applied.model, example).square().sum().backward()
    assert all(parameter.grad is not None for parameter in applied.model.parameters())


@pytest.mark.parametrize("rule", NODES)
def test_the_input_stays_as_it_was(correlated_task: Task, rule: str) -> None:
    model = correlated_task.model
    structure, state = repr(model), copy.deepcopy(model.state_dict())
    NODES[rule].apply(model, context_of(correlated_task))
    assert repr(model) == structure
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("rule", NODES)
def test_every_layer_gets_the_rank_of_the_rule_or_a_reason(correlated_task: Task, rule: str) -> None:
    """Those split by channels: ``tests/nn/test_reduce.py`` has the choice of the split."""
    node = dataclasses.replace(NODES[rule], scope="local")
    report = node.apply(correlated_task.model, context_of(correlated_task)).report
    assert set(report["spatial"]) < report["ranks"].keys()
    for name, module in correlated_task.model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or name in report["spatial"]:
            continue
        limit = break_even_rank(*weight_matrix(module).shape)
        spectrum = torch.linalg.svdvals(weight_matrix(module).double())
        rank = round_rank(choose_rank(spectrum, node.rule, node.threshold, limit), limit)
        if rank < limit:
            assert report["ranks"][name] == [None, rank]
        else:
            assert "saves weights" in report["left_out"][name]


def test_the_factors_of_the_result_are_the_singular_values_of_the_layer(correlated_task: Task) -> None:
    reduced = NODES["energy"].apply(correlated_task.model, context_of(correlated_task)).model
    for name, pair in reduced.named_modules():
        if isinstance(pair, LowRankPair):
            layer = correlated_task.model.get_submodule(name)
            spectrum = torch.linalg.svdvals(weight_matrix(layer, pair.split))  # type: ignore[arg-type]
            torch.testing.assert_close(
                singular_values_of(*pair_factors(pair)), spectrum[: pair.rank], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (LowRank(rule="energy", kept_energy=0.5), LowRank(rule="energy", kept_energy=0.95)),
        (
            LowRank(rule="singular_values", kept_singular_values=0.2),
            LowRank(rule="singular_values", kept_singular_values=0.7),
        ),
        (LowRank(rule="share", kept_weights=0.2), LowRank(rule="share", kept_weights=0.9)),
        (LowRank(rule="energy", kept_energy=0.8), LowRank(rule="share", kept_weights=0.8)),
        (LowRank(rule="share", kept_weights=0.4), LowRank(scope="local", rule="share", kept_weights=0.4)),
    ],
)
def test_every_field_changes_the_result(correlated_task: Task, first: LowRank, second: LowRank) -> None:
    context = context_of(correlated_task)
    reports = [node.apply(correlated_task.model, context).report for node in (first, second)]
    assert reports[0]["ranks"] != reports[1]["ranks"]


def test_a_pair_is_decomposed_again_only_where_that_saves(correlated_task: Task) -> None:
    context = context_of(correlated_task)
    node = LowRank(scope="local", rule="share", kept_weights=0.8)
    wide = node.apply(correlated_task.model, context).model
    again = node.apply(wide, context)
    assert again.report["changed"] is False
    assert "no layer" in again.report["reason"]
    narrow = dataclasses.replace(node, kept_weights=0.3).apply(wide, context)
    assert narrow.report["parameters_after"] < narrow.report["parameters_before"]
    for before, after in narrow.report["ranks"].values():
        assert before is None or after < before


def test_a_pair_that_is_larger_than_its_layer_becomes_one_layer() -> None:
    model = nn.Sequential(decompose(nn.Linear(16, 64), 15), nn.ReLU(), nn.Linear(64, 3)).eval()
    task = task_of(model)
    applied = LowRank(rule="energy", kept_energy=0.999).apply(task.model, context_of(task))
    assert applied.report["ranks"] == {"0": [15, None]}
    assert type(applied.model[0]) is nn.Linear  # type: ignore[index]
    torch.testing.assert_close(
        forward(applied.model, task.example), forward(task.model, task.example), rtol=1e-4, atol=1e-5
    )


def test_grouped_and_tied_layers_are_left_out() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
            self.b.weight = self.a.weight

        def forward(self, values: Tensor) -> Tensor:
            return self.head(self.b(self.a(values).relu()))

    task = task_of(Tied())
    report = LowRank(rule="share", kept_weights=0.5).apply(task.model, context_of(task)).report
    assert {"a", "b"} <= report["left_out"].keys()
    assert "shares its weight" in report["left_out"]["a"]


def test_a_model_without_layers_fails() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, values: Tensor) -> Tensor:
            return values[:, :3] + self.bias

    task = task_of(Mean())
    with pytest.raises(OperationFailed, match="no layer to decompose"):
        LowRank().apply(task.model, context_of(task))


class Reads(nn.Module):
    """Uses the weight of one layer without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.middle, self.head = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.middle(nn.functional.linear(values, self.wide.weight)))


def test_a_layer_whose_weight_the_model_reads_is_left_out() -> None:
    task = task_of(Reads())
    applied = LowRank(rule="share", kept_weights=0.3).apply(task.model, context_of(task))
    assert applied.report["left_out"]["wide"] == "the model reads its 'weight' without calling it"
    assert "wide" not in applied.report["ranks"]
    assert type(applied.model.wide) is nn.Linear
    assert applied.report["ranks"]["middle"] == [None, 8]
    assert applied.report["macs_after"] == count_macs(applied.model, task.example)


def of_rank(layer: nn.Linear, rank: int = 8) -> nn.Linear:
    with torch.no_grad():
        left, values, right = torch.linalg.svd(layer.weight)
        layer.weight.copy_(left[:, :rank] * values[:rank] @ right[:rank])
    return layer


class Plain(nn.Module):
    """Three layers, of which the first two have rank 8; each case relies on ``body`` in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.other = of_rank(nn.Linear(16, 64)), of_rank(nn.Linear(64, 64))
        self.head = nn.Linear(64, 3)

    def call_body(self, values: Tensor) -> Tensor:
        return self.body(values).relu()

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.other(self.call_body(values)).relu())


class Hooked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.body.register_forward_hook(lambda module, args, output: output.abs())


class HookedBefore(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.body.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


class Watched(Plain):
    """The hook changes nothing; the model reads what it has noted."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Tensor] = []
        self.body.register_forward_hook(lambda module, args, output: self.noted.append(output))


class Overridden(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.body.forward = lambda values: nn.functional.linear(values, self.body.weight)  # type: ignore[method-assign]


class Typed(Plain):
    def call_body(self, values: Tensor) -> Tensor:
        result = self.body(values)
        return result.relu() if isinstance(self.body, nn.Linear) else result.sigmoid()


class Raising(Plain):
    def call_body(self, values: Tensor) -> Tensor:
        assert type(self.body) is nn.Linear
        return super().call_body(values)


class Sized(Plain):
    def call_body(self, values: Tensor) -> Tensor:
        return self.body(values).relu() / self.body.out_features


class Guarded(Plain):
    def call_body(self, values: Tensor) -> Tensor:
        weight = getattr(self.body, "weight", None)
        return self.body(values) if weight is None else self.body(values) / weight.norm()


class Referenced(Plain):
    """Calls the layer through a list that torch does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [self.body]

    def call_body(self, values: Tensor) -> Tensor:
        return self.layers[0](values).relu()


class ReadInTraining(Plain):
    def call_body(self, values: Tensor) -> Tensor:
        return super().call_body(values) + (self.body.weight.sum() if self.training else 0)


class Subclassed(Plain):
    def __init__(self) -> None:
        super().__init__()

        class Doubling(nn.Linear):
            def forward(self, input: Tensor) -> Tensor:
                return 2 * super().forward(input)

        doubling = Doubling(16, 64)
        doubling.weight = self.body.weight
        self.body = doubling


@pytest.mark.parametrize(
    "kind",
    [
        *(Hooked, HookedBefore, Watched, Overridden, Typed, Raising, Sized, Guarded, Referenced),
        *(ReadInTraining, Subclassed),
    ],
)
def test_factors_that_lose_nothing_change_nothing_and_what_the_model_relies_on_is_named(
    kind: type[Plain],
) -> None:
    task = task_of(kind())
    applied = LowRank(rule="energy", kept_energy=0.999).apply(task.model, context_of(task))
    assert applied.report["ranks"] == {"other": [None, 8]}
    assert applied.report["left_out"]["body"]
    assert applied.report["outputs_moved"] < 1e-3
    torch.testing.assert_close(
        forward(applied.model, task.example), forward(task.model, task.example), rtol=1e-3, atol=1e-3
    )
    applied.model.train()(*task.example)


def test_a_model_that_relies_on_every_layer_stays_whole_and_says_so() -> None:
    task = task_of(nn.Sequential(nn.Linear(16, 3)))
    task.model[0].register_forward_hook(lambda module, args, output: output * 2)  # type: ignore[index]
    with pytest.raises(OperationFailed, match="its calls pass through hooks"):
        LowRank().apply(task.model, context_of(task))

    class Strict(nn.Sequential):
        def forward(self, values: Tensor) -> Tensor:
            assert not any(isinstance(layer, LowRankPair) for layer in self)
            return super().forward(values)

    task = task_of(Strict(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3)))
    report = LowRank(rule="share", kept_weights=0.3).apply(task.model, context_of(task)).report
    assert report["changed"] is False
    assert "the model relies on each layer" in report["reason"]
    assert "AssertionError" in report["left_out"]["0"]


class Events(nn.Module):
    """Embedding, Conv1d, grouped Conv1d, attention, GRU and LSTM on sequences of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32, padding_idx=0)
        self.conv, self.grouped = nn.Conv1d(32, 48, 3, padding=1), nn.Conv1d(48, 48, 3, groups=48)
        self.gru = nn.GRU(48, 32, 2, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(64, 2, batch_first=True)
        self.lstm = nn.LSTM(64, 32, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.gru(self.grouped(self.conv(self.embed(tokens).transpose(1, 2))).transpose(1, 2))[0]
        values = values + self.attention(values, values, values)[0]
        return self.head(self.lstm(values)[0][:, -1])


def events_task() -> Task:
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randint(0, 100, (12, 9)), torch.arange(12) % 3), batch_size=4)
    return Task.from_loaders(Events(), loader, apart(loader), metric="accuracy")


def test_sequences_all_kinds_are_factored_counted_and_named() -> None:
    task = events_task()
    applied = LowRank(rule="share", kept_weights=0.4).apply(task.model, context_of(task))
    recurrent = [
        f"{layer}.weight_{part}_l{index}"
        for layer, indices in (("gru", ("0", "0_reverse", "1", "1_reverse")), ("lstm", ("0",)))
        for index in indices
        for part in ("ih", "hh")
    ]
    report = applied.report
    attention = {"attention.in_proj", "attention.out_proj"}
    whole = {"embed", "conv", "head", *attention, *recurrent}
    assert report["ranks"].keys() == whole - report["left_out"].keys()
    assert report["ranks"].keys() >= {"embed", "conv", *attention, *recurrent}
    assert report["left_out"].keys() - {"head"} == {"grouped"}
    assert "groups" in report["left_out"]["grouped"]
    assert report["parameters_after"] == count_parameters(applied.model) < report["parameters_before"]
    assert report["macs_after"] == count_macs(applied.model, task.example)
    assert isinstance(applied.model.gru, FactoredRecurrent)
    again = LowRank(rule="share", kept_weights=0.2).apply(applied.model, context_of(task)).report
    assert all(before is None or after < before for before, after in again["ranks"].values())
    assert again["ranks"].keys() >= {"embed", "conv", *recurrent} - again["left_out"].keys()
    assert again["parameters_after"] < report["parameters_after"]


class Volumes(nn.Module):
    """Volumes (N, 2, 8, 8, 8) halved by a convolution and brought back by a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(2, 24, 3, stride=2, padding=1)
        self.middle = nn.Conv3d(24, 24, 3, padding=1)
        self.up = nn.ConvTranspose3d(24, 16, 3, stride=2, padding=1, output_padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, volumes: Tensor) -> Tensor:
        features = self.middle(self.down(volumes).relu()).relu()
        return self.head(self.up(features).relu().mean((2, 3, 4)))


@pytest.fixture
def volumes() -> Task:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(12, 2, 8, 8, 8), torch.arange(12) % 3)
    loader = DataLoader(data, batch_size=4)
    return Task.from_loaders(Volumes().eval(), loader, apart(loader), metric="accuracy")


def test_volumes_and_transposed_convolutions_are_factored_and_counted(volumes: Task) -> None:
    applied = LowRank(rule="share", scope="local", kept_weights=0.4).apply(volumes.model, context_of(volumes))
    pairs = {name: part for name, part in applied.model.named_modules() if isinstance(part, LowRankPair)}
    assert pairs.keys() >= {"middle", "up"}
    assert [type(part) for part in pairs["up"]] == [nn.Conv3d, nn.ConvTranspose3d]
    report, example = applied.report, volumes.example
    assert report["parameters_after"] == count_parameters(applied.model)
    assert report["macs_after"] == count_macs(applied.model, example) < report["macs_before"]
    saved = count_parameters(volumes.model) - count_parameters(applied.model)
    layers = {name: volumes.model.get_submodule(name) for name in pairs}
    assert saved == sum(count_parameters(layers[name]) - count_parameters(pairs[name]) for name in pairs)
    proto = export_onnx(applied.model, example)
    check_parity(applied.model, proto, example)
    pruned = Prune(removed=0.3).apply(applied.model, context_of(volumes))
    assert pruned.report["parameters_after"] < report["parameters_after"]
    assert forward(pruned.model, example).isfinite().all()


def test_all_layers_of_torchs_encoder_layer_are_factored() -> None:
    """Its fast path would hand the weights to a kernel."""
    layer = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True, dropout=0.0)
    data = TensorDataset(torch.randn(12, 5, 16), torch.arange(12) % 3)
    loader = DataLoader(data, batch_size=4)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(80, 64), nn.Linear(64, 3))
    task = Task.from_loaders(model, loader, apart(loader), metric="accuracy")
    applied = LowRank(rule="share", kept_weights=0.3).apply(task.model, context_of(task))
    layers = {"0.linear1", "0.linear2", "0.self_attn.in_proj", "0.self_attn.out_proj", "2"}
    assert applied.report["ranks"].keys() >= layers
    whole = LowRank(rule="energy", scope="local", kept_energy=0.999).apply(task.model, context_of(task)).model
    assert isinstance(whole.get_submodule("0.self_attn"), nn.MultiheadAttention)


def test_low_rank_and_prune_follow_each_other_in_both_orders(correlated_task: Task) -> None:
    context = context_of(correlated_task)
    for nodes in ((NODES["share"], Prune(removed=0.4)), (Prune(removed=0.4), NODES["share"])):
        model, sizes = correlated_task.model, [count_parameters(correlated_task.model)]
        for node in nodes:
            model = node.apply(model, context).model
            sizes.append(count_parameters(model))
        assert sizes[0] > sizes[1] > sizes[2]
        assert forward(model, correlated_task.example).shape == (8, 4)
