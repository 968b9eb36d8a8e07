from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.deploy import check_parity, export_onnx
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.nn.low_rank import FactoredRecurrent, matrix_names
from petra_optuna.nn.low_rank.factored_recurrent import assemble_recurrent, weight_of
from petra_optuna.nn.pruning.importance import magnitude_scores, weight_scores
from petra_optuna.nn.pruning.prune import PruningResult, prune_channels

GATES = {nn.GRU: 3, nn.LSTM: 4}
WIDTH, KEPT, FEATURES = 16, 8, 6


class Encoder(nn.Module):
    """A recurrent layer and a head that reads one of its results."""

    def __init__(
        self, kind: type[nn.GRU] | type[nn.LSTM], layers: int, both: bool, first: bool, read: str
    ) -> None:
        super().__init__()
        self.rnn = kind(FEATURES, WIDTH, layers, batch_first=first, bidirectional=both)
        blocks = {"state": 1, "cell": 1, "two states": 2, "all states": layers * (1 + both)}
        self.head = nn.Linear(WIDTH * blocks.get(read, 1 + both), 3)
        self.read = read

    def forward(self, series: Tensor) -> Tensor:
        output, states = self.rnn(series if self.rnn.batch_first else series.transpose(0, 1))
        hidden, cell = states if isinstance(states, tuple) else (states, states)
        output = output if self.rnn.batch_first else output.transpose(0, 1)
        reads: dict[str, Callable[[], Tensor]] = {
            "last": lambda: output[:, -1],
            "mean": lambda: output.mean(1),
            "state": lambda: hidden[-1],
            "cell": lambda: cell[-1],
            "two states": lambda: torch.cat((hidden[-2], hidden[-1]), 1),
            "all states": lambda: hidden.transpose(0, 1).reshape(len(series), -1),
        }
        return self.head(reads[self.read]())


def made(
    kind: type[nn.GRU] | type[nn.LSTM],
    *,
    layers: int = 1,
    both: bool = False,
    first: bool = True,
    read: str = "last",
) -> Encoder:
    torch.manual_seed(3)
    return Encoder(kind, layers, both, first, read).eval()


CONV1D = torch.randn(4, 5, FEATURES, generator=torch.Generator().manual_seed(0))


def pruned(
    model: nn.Module, inputs: Inputs = (CONV1D,), ratio: float = 0.5, scope: str = "local"
) -> PruningResult:
    return prune_channels(model, inputs, lambda net: magnitude_scores(net, 2), ratio, scope)  # type: ignore[arg-type]


def steps(rnn: nn.Module) -> list[str]:
    directions = ("", "_reverse") if rnn.bidirectional else ("",)
    return [f"l{layer}{direction}" for layer in range(rnn.num_layers) for direction in directions]


def importance(model: Encoder, step: str) -> Tensor:
    """By hand: squares of all weights that a hidden unit owns: rows in every gate, and what reads it."""
    rnn, names = model.rnn, steps(model.rnn)
    sums = torch.zeros(WIDTH)
    for unit in range(WIDTH):
        for gate in range(GATES[type(rnn)]):
            row = gate * WIDTH + unit
            for weight in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                sums[unit] += getattr(rnn, f"{weight}_{step}")[row].square().sum()
        sums[unit] += getattr(rnn, f"weight_hh_{step}")[:, unit].square().sum()
        directions = 1 + rnn.bidirectional
        layer, direction = divmod(names.index(step), directions)
        column = direction * WIDTH + unit
        if layer + 1 < rnn.num_layers:
            for reader in names[(layer + 1) * directions : (layer + 2) * directions]:
                sums[unit] += getattr(rnn, f"weight_ih_{reader}")[:, column].square().sum()
        else:
            sums[unit] += model.head.weight[:, column].square().sum()
    return sums


def small_by_hand(model: Encoder) -> Encoder:
    """The eight most important units of each layer and direction, copied weight by weight."""
    rnn, names = model.rnn, steps(model.rnn)
    kept = {step: importance(model, step).argsort(descending=True)[:KEPT].sort().values for step in names}
    small = copy.deepcopy(model)
    small.rnn = type(rnn)(
        FEATURES, KEPT, rnn.num_layers, batch_first=rnn.batch_first, bidirectional=rnn.bidirectional
    )
    directions = 1 + rnn.bidirectional
    with torch.no_grad():
        for place, step in enumerate(names):
            layer = place // directions
            below = names[(layer - 1) * directions : layer * directions]
            columns = torch.cat([kept[name] + WIDTH * at for at, name in enumerate(below)]) if layer else None
            rows = [gate * WIDTH + unit for gate in range(GATES[type(rnn)]) for unit in kept[step].tolist()]
            inputs = getattr(rnn, f"weight_ih_{step}")[rows]
            getattr(small.rnn, f"weight_ih_{step}").copy_(inputs if columns is None else inputs[:, columns])
            getattr(small.rnn, f"weight_hh_{step}").copy_(
                getattr(rnn, f"weight_hh_{step}")[rows][:, kept[step]]
            )
            for bias in ("bias_ih", "bias_hh"):
                getattr(small.rnn, f"{bias}_{step}").copy_(getattr(rnn, f"{bias}_{step}")[rows])
        top = torch.cat([kept[name] + WIDTH * at for at, name in enumerate(names[-directions:])])
        small.head = nn.Linear(len(top), 3)
        small.head.weight.copy_(model.head.weight[:, top])
        small.head.bias.copy_(model.head.bias)
    return small.eval()


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_pruned_equals_the_small_model_built_by_hand(
    kind: type[nn.GRU] | type[nn.LSTM], layers: int, both: bool, first: bool
) -> None:
    model = made(kind, layers=layers, both=both, first=first)
    small = small_by_hand(model)
    result = pruned(model)
    total = WIDTH * layers * (1 + both)
    assert result.widths == {"rnn": (total, total // 2)}
    assert (model.rnn.hidden_size, model.rnn.input_size) == (KEPT, FEATURES)
    torch.testing.assert_close(model(CONV1D), small(CONV1D), rtol=0, atol=1e-6)
    model.train()(CONV1D).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def read_by_head(model: Encoder) -> list[str]:
    """The layers and directions whose last states or outputs the head reads, in its columns' order."""
    names = steps(model.rnn)
    return names[-(model.head.in_features // WIDTH) :]


def silence(model: Encoder, seed: int = 5) -> dict[str, list[int]]:
    """Units that nothing reads and that weigh next to nothing, others in each layer and direction."""
    generator = torch.Generator().manual_seed(seed)
    rnn, names = model.rnn, steps(model.rnn)
    silent = {step: torch.randperm(WIDTH, generator=generator)[:KEPT] for step in names}
    directions = 1 + rnn.bidirectional
    with torch.no_grad():
        for place, step in enumerate(names):
            units = silent[step]
            rows = torch.cat([units + WIDTH * gate for gate in range(GATES[type(rnn)])])
            for weight in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(rnn, f"{weight}_{step}")[rows] *= 1e-3
            getattr(rnn, f"weight_hh_{step}")[:, units] = 0
            layer, direction = divmod(place, directions)
            for reader in names[(layer + 1) * directions : (layer + 2) * directions]:
                getattr(rnn, f"weight_ih_{reader}")[:, units + WIDTH * direction] = 0
        for place, step in enumerate(read_by_head(model)):
            model.head.weight[:, silent[step] + WIDTH * place] = 0
    return {step: sorted(units.tolist()) for step, units in silent.items()}


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("read", ["last", "mean", "state", "cell", "two states", "all states"])
def test_units_that_nothing_reads_leave_and_the_output_stays(
    kind: type[nn.GRU] | type[nn.LSTM], both: bool, read: str
) -> None:
    model = made(kind, layers=2, both=both, read=read)
    silent = silence(model)
    before = copy.deepcopy(model)
    assert pruned(model).widths == {"rnn": (2 * (1 + both) * WIDTH, 2 * (1 + both) * KEPT)}
    torch.testing.assert_close(model(CONV1D), before(CONV1D), rtol=0, atol=1e-6)
    for step in (*steps(model.rnn)[: 1 + both], *read_by_head(before)):
        kept = [unit for unit in range(WIDTH) if unit not in silent[step]]
        rows = [gate * WIDTH + unit for gate in range(GATES[kind]) for unit in kept]
        name = f"bias_hh_{step}"
        assert torch.equal(getattr(model.rnn, name), getattr(before.rnn, name)[rows])


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_factored_matrices_are_pruned_and_multiplied_where_that_is_smaller(
    kind: type[nn.GRU] | type[nn.LSTM],
) -> None:
    model = made(kind, layers=2)
    matrices: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
    for name in matrix_names(model.rnn):
        u, s, v = torch.linalg.svd(weight_of(model.rnn, name).detach(), full_matrices=False)
        rank = 4 if name == "weight_ih_l1" else 12
        matrices[name] = weight_of(model.rnn, name).detach()
        if name in ("weight_ih_l1", "weight_hh_l0"):
            matrices[name] = (u[:, :rank] * s[:rank], v[:rank])
    model.rnn = assemble_recurrent(model.rnn, matrices)
    silent = torch.arange(0, WIDTH, 2)
    with torch.no_grad():
        model.rnn.weight_hh_l0_right[:, silent] = 0
        model.rnn.weight_hh_l1[:, silent] = 0
        model.rnn.weight_ih_l1_right[:, silent] = 0
        model.head.weight[:, silent] = 0
        for name, parameter in model.rnn.named_parameters():
            if not name.endswith("right"):
                rows = parameter.view(GATES[kind], WIDTH, -1)
                rows[:, silent] *= 1e-3
    before = model(CONV1D)
    assert pruned(model).widths == {"rnn": (32, 16)}
    assert isinstance(model.rnn, FactoredRecurrent)
    torch.testing.assert_close(model(CONV1D), before, rtol=0, atol=1e-6)
    assert model.rnn.ranks == {"weight_ih_l1": 4}
    assert model.rnn.weight_hh_l0.shape == (GATES[kind] * KEPT, KEPT)


class Events(nn.Module):
    """Two embeddings and numbers, joined step by step, read by a GRU: CoLES's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(11, 16, padding_idx=0, max_norm=100.0)
        self.kinds = nn.Embedding(7, 24)
        self.rnn = nn.GRU(16 + 24 + 5, 32, batch_first=True)
        self.head = nn.Linear(32, 16)

    def forward(self, places: Tensor, kinds: Tensor, numbers: Tensor) -> Tensor:
        joined = torch.cat([self.places(places), self.kinds(kinds), numbers], -1)
        _, last = self.rnn(joined)
        return functional.normalize(self.head(last[-1]), dim=-1)


def events() -> tuple[Events, Inputs]:
    torch.manual_seed(4)
    tokens = torch.arange(24).reshape(4, 6)
    return Events().eval(), (tokens % 11, tokens % 7, torch.randn(4, 6, 5))


def test_columns_of_embeddings_leave_with_the_inputs_that_read_them() -> None:
    model, inputs = events()
    kept = {"places": torch.arange(1, 16, 2), "kinds": torch.arange(8)}
    with torch.no_grad():
        for name, start, width in (("places", 0, 16), ("kinds", 16, 24)):
            weak = [column for column in range(width) if column not in kept[name]]
            getattr(model, name).weight[:, weak] *= 1e-3
            model.rnn.weight_ih_l0[:, [start + column for column in weak]] = 0
    tables = {name: getattr(model, name).weight.detach().clone() for name in kept}
    rows, hidden = model.rnn.weight_ih_l0.detach().clone(), model.rnn.weight_hh_l0.detach().clone()
    widths = prune_only_embeddings(model, inputs)
    assert widths == {"places": (16, 8), "kinds": (24, 8)}
    for name, columns in kept.items():
        assert torch.equal(getattr(model, name).weight, tables[name][:, columns])
        assert getattr(model, name).embedding_dim == 8
    read = torch.cat([kept["places"], 16 + kept["kinds"], torch.arange(40, 45)])
    assert torch.equal(model.rnn.weight_ih_l0, rows[:, read])
    assert torch.equal(model.rnn.weight_hh_l0, hidden)
    assert (model.places.padding_idx, model.places.max_norm, model.rnn.input_size) == (0, 100.0, 21)


def prune_only_embeddings(model: Events, inputs: Inputs) -> dict[str, tuple[int, int]]:
    """Prune with the hidden units read by a buffer, so that they stay."""
    fixed = torch.randn(4, 32)

    class Fixed(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values + fixed

    model.head = nn.Sequential(Fixed(), nn.Linear(32, 16)).eval()
    result = pruned(model, inputs, 0.6)
    assert "does not run with fewer channels" in result.left_out["rnn"]
    return result.widths


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.65])
def test_the_share_is_met_and_widths_stay_round(scope: str, ratio: float) -> None:
    model, inputs = events()
    result = pruned(model, inputs, ratio, scope)
    before, after = (sum(widths) for widths in zip(*result.widths.values(), strict=True))
    assert result.widths.keys() == {"places", "kinds", "rnn"}
    assert abs(1 - after / before - ratio) <= 0.12
    assert all(width % 8 == 0 and width >= 8 for _, width in result.widths.values())
    assert model.rnn.hidden_size == result.widths["rnn"][1]
    forward(model, inputs).sum().backward()


class Reading(nn.Module):
    """A recurrent layer between two Linear layers, read by a function."""

    def __init__(self, rnn: nn.Module, read: Callable[[Reading, Tensor], Tensor], head: int) -> None:
        super().__init__()
        self.first, self.rnn, self.head = nn.Linear(FEATURES, WIDTH), rnn, nn.Linear(head, 3)
        self.read = read

    def forward(self, series: Tensor) -> Tensor:
        return self.head(self.read(self, self.first(series).relu()))


def both_ways(layers: int = 1) -> nn.GRU:
    return nn.GRU(WIDTH, WIDTH, layers, batch_first=True, bidirectional=True)


def ends(model: Reading, values: Tensor) -> Tensor:
    output, _ = model.rnn(values)
    width = model.rnn.hidden_size
    return torch.cat([output[:, -1, :width], output[:, 0, width:]], 1)


READS: dict[str, tuple[Callable[[], nn.Module], Callable[[Reading, Tensor], Tensor], int, int]] = {
    "residual": (
        lambda: nn.GRU(WIDTH, WIDTH, batch_first=True),
        lambda model, values: (values + model.rnn(values)[0]).mean(1),
        WIDTH,
        WIDTH,
    ),
    "residual over both directions": (
        both_ways,
        lambda model, values: (torch.cat([values, values], -1) + model.rnn(values)[0]).mean(1),
        2 * WIDTH,
        2 * WIDTH,
    ),
    "sum of directions": (both_ways, lambda model, values: model.rnn(values)[1].sum(0), WIDTH, 2 * WIDTH),
    "one of two directions": (
        lambda: both_ways(2),
        lambda model, values: model.rnn(values)[1][-1],
        WIDTH,
        4 * WIDTH,
    ),
    "unpacked": (
        both_ways,
        lambda model, values: torch.cat([*model.rnn(values)[1]], 1),
        2 * WIDTH,
        2 * WIDTH,
    ),
    "viewed by layer and direction": (
        lambda: both_ways(2),
        lambda model, values: torch.cat(
            [*model.rnn(values)[1].view(2, 2, len(values), model.rnn.hidden_size)[-1]], 1
        ),
        2 * WIDTH,
        4 * WIDTH,
    ),
    "first and last step": (both_ways, ends, 2 * WIDTH, 2 * WIDTH),
    "flattened": (
        lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True),
        lambda model, values: model.rnn(values)[0].flatten(1),
        5 * WIDTH,
        WIDTH,
    ),
}


@pytest.mark.parametrize("case", READS)
def test_results_may_be_read_in_many_ways(case: str) -> None:
    """That nothing but the removed units is missed is checked by pruning itself: see ``difference``."""
    rnn, read, head, total = READS[case]
    torch.manual_seed(6)
    model = Reading(rnn(), read, head).eval()
    result = pruned(model)
    assert result.widths["rnn"] == (total, total // 2)
    assert "rnn" not in result.left_out
    assert model.rnn.input_size == KEPT
    model(CONV1D).sum().backward()


REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[[Reading, Tensor], Tensor], str]] = {
    "twice": (
        lambda: nn.GRU(WIDTH, WIDTH, batch_first=True),
        lambda model, values: model.rnn(model.rnn(values)[0])[0].mean(1),
        "more than once",
    ),
    "initial state": (
        lambda: nn.GRU(WIDTH, WIDTH, batch_first=True),
        lambda model, values: model.rnn(values, values[:, 0][None])[0].mean(1),
        "initial state",
    ),
    "initial state and cell": (
        lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True),
        lambda model, values: model.rnn(values, (values[:, 0][None], values[:, 1][None]))[0].mean(1),
        "initial state",
    ),
    "projected": (
        lambda: nn.LSTM(WIDTH, 24, proj_size=WIDTH, batch_first=True),
        lambda model, values: model.rnn(values)[0].mean(1),
        "proj_size",
    ),
    "packed": (
        lambda: nn.GRU(WIDTH, WIDTH, batch_first=True),
        lambda model, values: model.rnn(
            nn.utils.rnn.pack_padded_sequence(values, torch.tensor([5, 4, 3, 2]), batch_first=True)
        )[1][-1],
        "packed",
    ),
    "cell": (
        lambda: nn.GRUCell(WIDTH, WIDTH),
        lambda model, values: model.rnn(values[:, 1], model.rnn(values[:, 0])),
        "not cells",
    ),
    "plain": (
        lambda: nn.RNN(WIDTH, WIDTH, batch_first=True),
        lambda model, values: model.rnn(values)[0].mean(1),
        "only GRU and LSTM",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_pruned_is_named_with_its_inputs(case: str) -> None:
    rnn, read, reason = REFUSED[case]
    torch.manual_seed(6)
    model = Reading(rnn(), read, WIDTH).eval()
    before = copy.deepcopy(model.state_dict())
    result = pruned(model)
    assert result.widths == {}
    assert reason in result.left_out["rnn"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_slice_of_fixed_width_is_noticed_though_the_shapes_fit() -> None:
    """With eight units, columns up to 16 are those of both directions and the rest is empty."""

    def fixed(model: Reading, values: Tensor) -> Tensor:
        output, _ = model.rnn(values)
        return torch.cat([output[:, -1, :WIDTH], output[:, 0, WIDTH:]], 1)

    torch.manual_seed(6)
    model = Reading(both_ways(), fixed, 2 * WIDTH).eval()
    result = pruned(model)
    assert result.widths == {"first": (16, 8)}
    assert "fixes a width" in result.left_out["rnn"]
    assert (model.rnn.input_size, model.rnn.hidden_size) == (KEPT, WIDTH)


def test_embeddings_that_are_summed_inside_or_tied_are_named() -> None:
    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.words = nn.EmbeddingBag(11, 16), nn.Embedding(11, 16)
            self.hidden, self.back = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, tokens: Tensor) -> Tensor:
            hidden = self.back(self.hidden(self.bag(tokens) + self.words(tokens).mean(1)).relu())
            return functional.linear(hidden, self.words.weight)

    model = Bags().eval()
    result = pruned(model, (torch.arange(24).reshape(4, 6) % 11,))
    assert result.widths == {"hidden": (32, 16)}
    assert result.left_out.keys() == {"bag", "words", "back"}


def test_a_criterion_without_scores_for_a_group_is_named() -> None:
    model, inputs = events()
    result = prune_channels(
        model,
        inputs,
        lambda net: weight_scores(
            net, "batch_norm", batches=(), loss=lambda net, batch: torch.zeros(()), seed=0
        ),
        0.5,
        "local",
    )
    assert result.widths == {}
    assert result.left_out["rnn"] == "the criterion has nothing to score in it"


def test_random_scores_prune_the_same_share_and_repeat() -> None:
    def run() -> Events:
        model, inputs = events()
        result = prune_channels(
            model,
            inputs,
            lambda net: weight_scores(
                net, "random", batches=(), loss=lambda net, batch: torch.zeros(()), seed=0
            ),
            0.5,
            "global",
        )
        before, after = (sum(widths) for widths in zip(*result.widths.values(), strict=True))
        assert abs(after / before - 0.5) <= 0.12
        return model

    first, second = run(), run()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_the_generators_of_others_are_not_moved() -> None:
    model, inputs = events()
    state = torch.get_rng_state()
    pruned(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_the_pruned_model_becomes_a_file(kind: type[nn.GRU] | type[nn.LSTM]) -> None:
    model = made(kind, both=True)
    pruned(model)
    check_parity(model, export_onnx(model, (CONV1D,)), (CONV1D,))
