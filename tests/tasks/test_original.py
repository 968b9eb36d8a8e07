"""A task's model returns one tensor in float32, whatever the user's model returns, or is wrapped in."""

from __future__ import annotations

import dataclasses
import logging
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.loaders import apart
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune, spectral_norm, weight_norm
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.errors import TaskError
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.outputs import own_model
from petra_optuna.operations import Context, Prune, QuantizeAware, Train
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task

INPUTS, TARGETS = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
Named = namedtuple("Named", "aux logits")


@dataclasses.dataclass
class Data:
    scores: Tensor
    hidden: Tensor | None = None


class Returning(nn.Module):
    """Two heads, of which ``form`` decides how they are returned."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.body, self.head, self.aux = nn.Linear(16, 32), nn.Linear(32, 3), nn.Linear(32, 3)

    def forward(self, inputs: Tensor) -> Any:
        hidden = self.body(inputs).relu()
        main, aux = self.head(hidden), self.aux(hidden)
        return {
            "tuple": lambda: (main, aux),
            "reversed": lambda: [aux, main],
            "dict": lambda: {"aux": aux, "logits": main},
            "named": lambda: Named(aux, main),
            "dataclass": lambda: Data(main),
            "unnamed dict": lambda: {"first": main, "second": aux},
            "training tuple": lambda: (main, aux) if self.training else main,
            "training reversed": lambda: (aux, main) if self.training else main,
        }[self.form]()


def _task(model: nn.Module, inputs: Tensor = INPUTS, **more: Any) -> Task:
    loader = DataLoader(TensorDataset(inputs, TARGETS), batch_size=16)
    return Task.from_loaders(model, loader, apart(loader), metric="accuracy", **more)


def _context(task: Task) -> Context:
    return Context(task, Recipe(lr=1e-2, batch_size=32), seed=1, epochs=1)


CHOICES: dict[str, dict[str, Any]] = {
    "tuple": {"output": 0},
    "reversed": {"output": 1},
    "dict": {},
    "named": {},
    "dataclass": {},
    "unnamed dict": {"output": "first"},
    "training tuple": {},
    "training reversed": {},
}


@pytest.mark.parametrize("form", CHOICES)
def test_the_chosen_output_is_what_is_trained_and_pruned(form: str) -> None:
    model = Returning(form).eval()
    task = _task(model, **CHOICES[form])
    expected = model.head(model.body(INPUTS).relu())
    assert torch.equal(forward(task.model, (INPUTS,)), expected)
    trained = Train(epochs=1).apply(task.model, _context(task)).model
    assert not torch.equal(forward(trained, (INPUTS,)), expected)
    inner = own_model(trained)
    teacher = own_model(task.model)
    assert torch.equal(inner.get_parameter("aux.bias"), teacher.get_parameter("aux.bias"))
    assert QuantizeAware(epochs=1).apply(task.model, _context(task)).report["changed"]
    if form != "dataclass":  # its second head leads nowhere, so nothing tells that it reads the same channels
        pruned = Prune(removed=0.5).apply(task.model, _context(task)).model
        assert own_model(pruned).get_submodule("aux").in_features < 32
        Train(epochs=1).apply(pruned, _context(task))


def test_a_function_makes_one_output_of_several_and_a_step_of_ones_own_sees_all() -> None:
    joined = _task(Returning("tuple"), output=lambda outputs: torch.cat(outputs, 1))
    assert forward(joined.model, (INPUTS,)).shape == (64, 6)
    seen = []

    def step(model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        outputs = model(*inputs)
        seen.append(type(outputs))
        return functional.cross_entropy(outputs[0], targets) + functional.cross_entropy(outputs[1], targets)

    task = _task(Returning("tuple"), output=0, training_step=step)
    trained = own_model(Train(epochs=1).apply(task.model, _context(task)).model)
    assert set(seen) == {tuple}
    assert not torch.equal(trained.get_parameter("aux.weight"), Returning("tuple").aux.weight)
    simulated = QuantizeAware(epochs=1).apply(task.model, _context(task))
    assert {name.rpartition(".")[2] for name in simulated.report["layers"]} == {"body", "head", "aux"}


@pytest.mark.parametrize(
    ("form", "output", "reason"),
    [
        ("tuple", None, "returns tuple of 0: (2, 3), 1: (2, 3); give `output`"),
        ("unnamed dict", None, "first: (2, 3), second: (2, 3); give `output`"),
        ("tuple", 2, "no output 2 in tuple"),
        ("dict", "scores", "no output 'scores' in dict"),
        ("training tuple", "logits", "no output 'logits' in tuple"),
    ],
)
def test_what_cannot_be_chosen_is_refused_at_the_start(form: str, output: Any, reason: str) -> None:
    with pytest.raises(TaskError) as caught:
        _task(Returning(form), output=output)
    assert reason in str(caught.value)
    with pytest.raises(TaskError, match=r"returns one tensor .* leave it out"):
        _task(nn.Linear(16, 3), output=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_become_float32_and_the_log_says_so(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3)).to(dtype)
    with caplog.at_level(logging.WARNING):
        task = _task(model, INPUTS.to(dtype))
    assert {value.dtype for value in task.model.parameters()} == {torch.float32}
    assert {value.dtype for value in model.parameters()} == {dtype}
    assert task.example[0].dtype == torch.float32
    assert f"{dtype} tensors are kept in float32" in caplog.text
    assert Train(epochs=1).apply(task.model, _context(task)).report["changed"]


def test_a_model_that_needs_double_is_refused() -> None:
    class Cancelling(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) + 1e9 - 1e9

    with pytest.raises(TaskError, match="and in float32 its output differs"):
        _task(Cancelling(16, 3).double(), INPUTS.double())


def test_a_model_that_changes_its_inputs_is_refused_unless_a_second_call_gives_the_same() -> None:
    class Changing(nn.Linear):
        def __init__(self, change: Callable[[Tensor], object]) -> None:
            super().__init__(16, 3)
            self.change = change

        def forward(self, inputs: Tensor) -> Tensor:
            self.change(inputs)
            return super().forward(inputs)

    with pytest.raises(TaskError, match="changes its inputs in place"):
        _task(Changing(double_in_place))
    _task(Changing(functional.relu_))


def double_in_place(inputs: Tensor) -> None:
    inputs.mul_(2)


def test_wrappers_are_taken_off_and_old_parametrisations_folded() -> None:
    plain = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    for wrapped in (nn.DataParallel(plain), torch.compile(plain)):
        kept = _task(wrapped).model
        assert type(kept) is nn.Sequential
        assert torch.equal(kept(INPUTS), plain(INPUTS))
    changes = (weight_norm, spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5))
    for change in changes:
        layer = nn.Linear(16, 32)
        change(layer)
        model = nn.Sequential(layer, nn.ReLU(), nn.Linear(32, 3)).eval()
        expected = model(INPUTS)
        kept = _task(model).model
        assert {name for name, _ in kept.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}
        torch.testing.assert_close(kept(INPUTS), expected)
        torch.testing.assert_close(model(INPUTS), expected)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.LazyLinear(3)), "of a lazy module has no shape yet; run the model"),
        (nn.Linear(16, 3, device="meta"), "is on the meta device"),
        (torch.jit.trace(nn.Linear(16, 3), INPUTS), "is scripted"),
        (functional.relu, "must be a torch.nn.Module"),
    ],
)
def test_what_cannot_be_kept_is_one_line(model: Any, reason: str) -> None:
    with pytest.raises(TaskError) as caught:
        _task(model)
    assert reason in str(caught.value)


def test_a_sparse_embedding_trains_with_dense_gradients() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(20, 8, sparse=True), nn.Linear(8, 3)

        def forward(self, indices: Tensor) -> Tensor:
            return self.head(self.table(indices).mean(1))  # type: ignore[no-any-return]

    task = _task(Bag(), torch.arange(128).reshape(64, 2) % 20)
    assert Train(epochs=1).apply(task.model, _context(task)).report["changed"]


def test_the_untrained_network_is_made_as_the_copy_was() -> None:
    def made() -> nn.Module:
        return Returning("tuple").double()

    task = _task(made(), INPUTS.double(), output=1, initial=made).in_mode("untrained")
    start = task.start(seed=3)
    assert {value.dtype for value in start.parameters()} == {torch.float32}
    assert forward(start, task.example).shape == (8, 3)
