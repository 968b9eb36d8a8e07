from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from petra_optuna.errors import OperationFailed, StudyError
from petra_optuna.evaluation import checkpoint
from petra_optuna.evaluation.checkpoint import DamagedCheckpoint
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.low_rank import (
    FactoredRecurrent,
    LowRankPair,
    decompose,
    factorize_fully,
    merge_factors,
    reduce_layer,
)
from petra_optuna.nn.low_rank.pairs import recompose
from petra_optuna.nn.surgery import replace_module
from petra_optuna.operations import Context, LowRank, Prune, QuantizeAware, Train
from petra_optuna.pipeline import Operation, Recipe
from petra_optuna.tasks import Task

CHAINS: dict[str, tuple[Operation, ...]] = {
    "nothing": (),
    "train": (Train(epochs=1),),
    "prune": (Prune(removed=0.5, criterion="taylor"),),
    "low rank": (LowRank(rule="share", kept_weights=0.5),),
    "qat": (QuantizeAware(epochs=1),),
    "low rank, prune": (LowRank(rule="share", kept_weights=0.8), Prune(removed=0.4)),
    "prune, low rank, train": (Prune(removed=0.4), LowRank(rule="share", kept_weights=0.5), Train(epochs=1)),
    "qat, prune, low rank again": (
        QuantizeAware(epochs=1),
        LowRank(rule="share", kept_weights=0.9),
        Prune(removed=0.3),
        LowRank(rule="share", kept_weights=0.3),
    ),
}


def assert_equal(found: nn.Module, expected: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Bit for bit: names and their order, dtypes, values, flags, modes, classes and outputs."""
    assert repr(found) == repr(expected)
    assert [name for name, _ in found.named_modules()] == [name for name, _ in expected.named_modules()]
    assert [m.training for m in found.modules()] == [m.training for m in expected.modules()]
    ours, theirs = found.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert ours[name].stride() == value.stride()
        assert torch.equal(ours[name], value)
    parameters = dict(expected.named_parameters())
    assert {n: p.requires_grad for n, p in found.named_parameters()} == {
        n: p.requires_grad for n, p in parameters.items()
    }
    with torch.no_grad():
        assert torch.equal(forward(found, inputs), forward(expected, inputs))


def chained(task: Task, chain: tuple[Operation, ...]) -> nn.Module:
    model = task.model
    for node in chain:
        model = node.apply(model, Context(task, Recipe(batch_size=32), seed=0, epochs=1)).model
    return model


@pytest.mark.parametrize("chain", CHAINS)
def test_round_trip_through_bytes_and_folder(tiny_task: Task, chain: str, tmp_path: Path) -> None:
    model = chained(tiny_task, CHAINS[chain])
    base = copy.deepcopy(tiny_task.model)
    data = checkpoint.to_bytes(model, tiny_task.model)
    images = tiny_task.example
    assert isinstance(images, tuple)
    assert_equal(checkpoint.from_bytes(data, tiny_task.model), model, images)
    checkpoint.save(model, tiny_task.model, tmp_path / "rebuild")
    assert sorted(path.name for path in (tmp_path / "rebuild").iterdir()) == [
        "structure.json",
        "weights.safetensors",
    ]
    rebuilt = checkpoint.load(tmp_path / "rebuild", lambda: copy.deepcopy(base))
    assert_equal(rebuilt, model, images)
    assert_equal(tiny_task.model, base, images)
    assert checkpoint.to_bytes(rebuilt, base) == data


@pytest.mark.parametrize("chain", ["prune", "low rank, prune"])
def test_nodes_after_a_rebuilt_model_do_the_same_as_after_the_model(tiny_task: Task, chain: str) -> None:
    """What the prefix cache rests on."""
    model = chained(tiny_task, CHAINS[chain])
    rebuilt = checkpoint.from_bytes(checkpoint.to_bytes(model, tiny_task.model), tiny_task.model)
    context = Context(tiny_task, Recipe(batch_size=32), seed=0, epochs=1)
    for node in (
        Train(epochs=1),
        Prune(removed=0.3, criterion="taylor", scope="global"),
        QuantizeAware(epochs=1),
    ):
        first, second = node.apply(model, context), node.apply(rebuilt, context)
        assert first.report == second.report
        for name, value in first.model.state_dict().items():
            assert torch.equal(value, second.model.state_dict()[name])


class Token(nn.Module):
    """A user's module: a parameter and a buffer of its own beside layers, two tied, one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(16))
        self.register_buffer("scale", torch.rand(16), persistent=False)
        self.embed = nn.Linear(6, 16)
        self.encode, self.decode = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.decode.weight = self.encode.weight
        self.again = self.embed
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)
        self.steps = 2

    def forward(self, values: Tensor) -> Tensor:
        hidden = (self.embed(values) + self.token) * self.scale + self.again(values)
        for _ in range(self.steps):
            hidden = self.norm(self.decode(self.encode(hidden).relu()))
        return self.head(hidden)


def shrink(model: Token, width: int) -> Token:
    """By hand what pruning does: layers in place, parameters of the whole by assignment."""
    model = copy.deepcopy(model)
    model.token = nn.Parameter(model.token[:width].detach().clone())
    model.scale = model.scale[:width].clone()
    for layer, rows, columns in (
        (model.embed, width, 6),
        (model.encode, width, width),
        (model.head, 3, width),
    ):
        layer.weight = nn.Parameter(layer.weight[:rows, :columns].detach().clone())
        layer.out_features, layer.in_features = rows, columns
    model.decode.weight = model.encode.weight
    model.decode.in_features = model.decode.out_features = width
    model.embed.bias = nn.Parameter(model.embed.bias[:width].detach().clone())
    model.norm = nn.LayerNorm(width)
    return model


def untied(model: Token) -> Token:
    model = copy.deepcopy(model)
    model.decode.weight = nn.Parameter(2 * model.encode.weight.detach())
    return model


def frozen(model: Token) -> Token:
    model = copy.deepcopy(model)
    model.encode.weight.requires_grad_(False)
    model.norm.train()
    return model


def paired(model: Token) -> Token:
    model = copy.deepcopy(model)
    model.head = decompose(model.head, 2)  # type: ignore[assignment]
    model.embed = model.again = decompose(model.embed, 3)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("change", [copy.deepcopy, lambda m: shrink(m, 8), untied, frozen, paired])
def test_a_users_module_with_tensors_of_its_own(change: Callable[[Token], Token]) -> None:
    torch.manual_seed(0)
    base = Token().eval()
    model = change(base).eval() if change is not frozen else change(base)
    rebuilt = checkpoint.from_bytes(checkpoint.to_bytes(model, base), base)
    assert isinstance(rebuilt, Token)
    assert_equal(rebuilt, model, (torch.randn(4, 6),))
    assert torch.equal(rebuilt.scale, model.scale)
    assert rebuilt.again is rebuilt.embed
    assert (rebuilt.decode.weight is rebuilt.encode.weight) == (model.decode.weight is model.encode.weight)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, padding_mode="replicate"), torch.randn(2, 4, 9)),
        (nn.Conv2d(4, 6, (3, 1), padding="same", groups=2, bias=False), torch.randn(2, 4, 9, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), torch.randn(2, 4, 9, 9)),
        (nn.BatchNorm2d(4, affine=False, momentum=None), torch.randn(2, 4, 9, 9)),
        (nn.GroupNorm(2, 4), torch.randn(2, 4, 9)),
        (nn.LayerNorm((4, 9), bias=False), torch.randn(2, 4, 9)),
        (nn.PReLU(4), torch.randn(2, 4, 9)),
        (nn.Identity(), torch.randn(2, 4)),
        (nn.Linear(4, 6, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)),
        (decompose(nn.Conv2d(4, 8, 3, padding=1), 2), torch.randn(2, 4, 9, 9)),
        (decompose(nn.Conv2d(4, 8, 3, stride=2, padding="valid"), 2, "spatial"), torch.randn(2, 4, 9, 9)),
        (decompose(nn.Conv1d(4, 8, 3, padding=1, padding_mode="circular"), 2), torch.randn(2, 4, 9)),
        (nn.ConvTranspose3d(4, 6, 2, stride=2), torch.randn(2, 4, 3, 3, 3)),
        (decompose(nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1), 2), torch.randn(2, 8, 5, 5)),
        (decompose(nn.Conv3d(4, 8, 3, padding=1), 2, "spatial"), torch.randn(2, 4, 5, 5, 5)),
        (recompose(decompose(nn.Linear(4, 6), 4)), torch.randn(2, 4)),
    ],
)
def test_every_known_class_is_built_anew(layer: nn.Module, inputs: Tensor) -> None:
    base = nn.Sequential(nn.Linear(3, 3)).eval()
    model = nn.Sequential(layer).eval()
    rebuilt = checkpoint.from_bytes(checkpoint.to_bytes(model, base), base)
    assert_equal(rebuilt, model, (inputs,))
    whole = checkpoint.from_bytes(checkpoint.to_bytes(layer, nn.Linear(3, 3)), nn.Linear(3, 3))
    assert_equal(whole, layer, (inputs,))


@pytest.mark.parametrize("change", [lambda layer: layer, lambda layer: decompose(layer, 3)])
def test_an_embedding_is_built_anew(change: Callable[[nn.Embedding], nn.Module]) -> None:
    base, model = nn.Sequential(nn.Linear(3, 3)), nn.Sequential(change(nn.Embedding(7, 5, padding_idx=2)))
    tokens = torch.tensor([[0, 2, 6]])
    assert_equal(checkpoint.from_bytes(checkpoint.to_bytes(model, base), base), model, (tokens,))


class Recurrent(nn.Module):
    """Two recurrent layers in a user's module."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 24, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.lstm = nn.LSTM(48, 16, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        return self.lstm(self.gru(values)[0])[0]


@pytest.mark.parametrize("rule", ["share", "full"])
def test_factored_recurrent_layers_are_built_anew(rule: str) -> None:
    torch.manual_seed(0)
    base = Recurrent().eval()
    model, names = factorize_fully(copy.deepcopy(base))
    if rule == "share":
        for name in names:
            part = reduce_layer(model.get_submodule(name), "share", 0.5)
            replace_module(model, name, part.layer or model.get_submodule(name))
        assert {type(model.gru), type(model.lstm)} == {FactoredRecurrent}
    rebuilt = checkpoint.from_bytes(checkpoint.to_bytes(model, base), base)
    assert_equal(rebuilt, model, (torch.randn(3, 5, 6),))
    whole = checkpoint.from_bytes(checkpoint.to_bytes(model.gru, nn.Linear(3, 3)), nn.Linear(3, 3))
    assert repr(whole) == repr(model.gru)
    merged = merge_factors(model, names)
    again = checkpoint.from_bytes(checkpoint.to_bytes(merged, base), base)
    assert_equal(again, merged, (torch.randn(3, 5, 6),))


def test_a_checkpoint_cannot_pair_what_is_no_pair() -> None:
    model = nn.Sequential(LowRankPair(nn.Linear(4, 2), nn.Linear(2, 4)))
    model[0][0] = nn.BatchNorm1d(4)  # type: ignore[operator]
    with pytest.raises(DamagedCheckpoint, match="no low-rank pair"):
        checkpoint.from_bytes(checkpoint.to_bytes(model, nn.Sequential(nn.ReLU())), nn.Sequential(nn.ReLU()))


def test_building_draws_no_random_numbers() -> None:
    base, model = nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 5))
    data, state = checkpoint.to_bytes(model, base), torch.get_rng_state()
    checkpoint.from_bytes(data, base)
    assert torch.equal(torch.get_rng_state(), state)


class Power(nn.Module):
    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, values: Tensor) -> Tensor:
        return values.abs() ** self.exponent


def test_an_unknown_class_is_left_as_the_base_has_it_and_refused_when_it_changed() -> None:
    base = nn.Sequential(nn.Linear(3, 3), Power(2.0))
    model = nn.Sequential(nn.Linear(3, 5), Power(2.0))
    rebuilt = checkpoint.from_bytes(checkpoint.to_bytes(model, base), base)
    assert rebuilt[1].exponent == 2.0  # type: ignore[index]
    with pytest.raises(OperationFailed, match=r"'1' \(.*Power\) changed its 'exponent'"):
        checkpoint.to_bytes(nn.Sequential(nn.Linear(3, 5), Power(3.0)), base)
    with pytest.raises(OperationFailed, match=r"'1' \(.*Tanh\) is new"):
        checkpoint.to_bytes(nn.Sequential(nn.Linear(3, 5), nn.Tanh()), base)
    with pytest.raises(OperationFailed, match="'1' of the original is gone"):
        checkpoint.to_bytes(nn.Sequential(nn.Linear(3, 5)), base)
    grown = copy.deepcopy(base)
    grown[1].extra = nn.Parameter(torch.ones(1))
    with pytest.raises(OperationFailed, match="has other tensors"):
        checkpoint.to_bytes(grown, base)


@pytest.fixture
def saved() -> tuple[nn.Module, bytes]:
    base = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return base, checkpoint.to_bytes(nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)), base)


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1])
def test_a_truncated_checkpoint_is_refused(saved: tuple[nn.Module, bytes], length: int) -> None:
    base, data = saved
    with pytest.raises(DamagedCheckpoint):
        checkpoint.from_bytes(data[:length], base)


def test_any_flipped_byte_is_noticed(saved: tuple[nn.Module, bytes]) -> None:
    base, data = saved
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 0x11
        with pytest.raises(DamagedCheckpoint):
            checkpoint.from_bytes(bytes(damaged), base)


def test_a_checkpoint_of_another_base_is_refused(saved: tuple[nn.Module, bytes]) -> None:
    _, data = saved
    with pytest.raises(DamagedCheckpoint, match="another model"):
        checkpoint.from_bytes(data, nn.Sequential(nn.Linear(8, 8)))
    with pytest.raises(DamagedCheckpoint, match="another model"):
        checkpoint.from_bytes(
            data, nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(3, 3))
        )


def test_a_folder_without_a_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"structure\.json is missing") as caught:
        checkpoint.load(tmp_path, nn.Linear(3, 3))
    assert "\n" not in str(caught.value)
    checkpoint.save(nn.Linear(3, 3), nn.Linear(3, 3), tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(StudyError, match=r"weights\.safetensors is missing"):
        checkpoint.load(tmp_path, nn.Linear(3, 3))


def test_an_edited_structure_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5))
    checkpoint.save(model, nn.Sequential(nn.Linear(3, 3)), tmp_path)
    path = tmp_path / "structure.json"
    structure = json.loads(path.read_text())
    structure["modules"]["0"]["args"]["out_features"] = 6
    path.write_text(json.dumps(structure))
    with pytest.raises(DamagedCheckpoint, match="altered"):
        checkpoint.load(tmp_path, nn.Sequential(nn.Linear(3, 3)))


def test_nothing_in_the_format_is_a_pickle(saved: tuple[nn.Module, bytes], tmp_path: Path) -> None:
    base, data = saved
    model = checkpoint.from_bytes(data, base)
    torch.save(model.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "structure.json").write_text("{}")
    with pytest.raises(DamagedCheckpoint):
        checkpoint.load(tmp_path, base)
