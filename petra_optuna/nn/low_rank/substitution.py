"""Replacement of layers by factors, checked by value.

The law: with factors in place of layers a model computes what it computes where each of those layers holds
the product of its factors as its weight. Whatever a model hangs on a layer besides its weight breaks that
law: a hook, the layer's class, a parameter that is read without a call, a second reference. So each layer is
compared with its replacement on what it is called with, and the model without the replacements with the model
that has them. What breaks the law stays in place and is named.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from petra_optuna.errors import FOREIGN_ERRORS, one_line
from petra_optuna.nn.agreement import agree, largest_change
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.culprits import find_culprits
from petra_optuna.nn.inputs import Inputs, call, forward
from petra_optuna.nn.low_rank.factored_models import whole_layer
from petra_optuna.nn.low_rank.factored_recurrent import FactoredRecurrent, matrix_names, weight_of
from petra_optuna.nn.low_rank.pairs import LowRankPair, recompose
from petra_optuna.nn.randomness import seeded
from petra_optuna.nn.surgery import replace_module


@dataclasses.dataclass(frozen=True)
class Substitution:
    """A model with factors in place of layers.

    Attributes:
        model: The model, or the replacement where it is one layer.
        placed: Names of the layers that were replaced.
        left_out: Reason for each layer that stayed in place, by name.
        moved: Largest change of an output by the factors, as a share of the largest output.
    """

    model: nn.Module
    placed: tuple[str, ...] = ()
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    moved: float = 0.0


@torch.no_grad()
def substitute(model: nn.Module, replacements: Mapping[str, nn.Module], inputs: Inputs) -> Substitution:
    """Put replacements into a model, in place, where the model then computes what the factors claim.

    Args:
        model: Model in evaluation mode, private to the caller.
        replacements: What ``reduce_layer`` or ``decompose`` made of a layer, by its name.
        inputs: Batch of real data.
    """
    before = _run(model, inputs)
    trial = _Trial.of(model, replacements, inputs)
    left_out = dict(trial.problems)
    names = [name for name in replacements if name not in left_out]
    problem = trial.problem_of(names) if names else None
    if problem is not None:
        left_out |= find_culprits(names, problem, trial.problem_of)
    placed = tuple(name for name in names if name not in left_out)
    for name in placed:
        model = replace_module(model, name, replacements[name])
    return Substitution(model, placed, left_out, largest_change(_run(model, inputs), before))


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A copy of the model whose layers hold the products of the factors, and what it computes.

    Attributes:
        dense: The copy.
        replacements: What stands for a layer, by its name.
        inputs: Batch that it runs on.
        expected: Its output.
        calls: How often it calls each layer.
        problems: Problems of single layers, by name.
        trains: Whether it runs in training mode.
    """

    dense: nn.Module
    replacements: Mapping[str, nn.Module]
    inputs: Inputs
    expected: Tensor
    calls: Mapping[str, int]
    problems: Mapping[str, str]
    trains: bool

    @classmethod
    def of(cls, model: nn.Module, replacements: Mapping[str, nn.Module], inputs: Inputs) -> _Trial:
        """Run the copy, and each replacement on what its layer is called with."""
        dense = private_copy(model)
        for name, replacement in replacements.items():
            dense = _hold_product(dense, name, replacement)
        problems: dict[str, str] = {}
        layers = {name: dense.get_submodule(name) for name in replacements}
        with _observed(layers, _comparison(replacements, problems)) as calls:
            expected = _run(dense, inputs)
        trains = _training_problem(dense, inputs) is None
        trial = cls(dense, replacements, inputs, expected, calls, problems, trains)
        uncalled = [name for name in replacements if not calls[name]]
        problems |= {name: trial.problem_of([name]) or "no forward pass calls it" for name in uncalled}
        return trial

    def problem_of(self, names: Sequence[str]) -> str | None:
        """What is wrong with the copy that has the replacements of these names, or None."""
        layers = {name: self.dense.get_submodule(name) for name in names}
        trial = self.dense
        for name in names:
            trial = replace_module(trial, name, self.replacements[name])
        try:
            return self._problem(trial, names)
        finally:
            for name, layer in layers.items():
                replace_module(self.dense, name, layer)

    def _problem(self, trial: nn.Module, names: Iterable[str]) -> str | None:
        try:
            with _observed({name: self.replacements[name] for name in names}) as calls:
                outputs = _run(trial, self.inputs)
        except FOREIGN_ERRORS as error:
            return _failure(error)
        if any(calls[name] != self.calls[name] for name in names):
            return "the model calls it by another way than its name"
        if not agree(outputs, self.expected):
            return "the model computes something else with factors in its place"
        return _training_problem(trial, self.inputs) if self.trains else None


Observer = Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]
"""Is told the name of a module, what it was called with, and what it returned."""


@contextmanager
def _observed(modules: Mapping[str, nn.Module], observer: Observer | None = None) -> Iterator[Counter[str]]:
    """Count the calls of modules inside the block by their names.

    No hooks: attention and encoder layers of torch take another way where one of their parts has some.
    """
    calls: Counter[str] = Counter()

    def counting(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            calls[name] += 1
            if observer is not None:
                observer(name, args, kwargs, output)
            return output

        return run

    for name, module in modules.items():
        vars(module)["forward"] = counting(name, module.forward)
    try:
        yield calls
    finally:
        for module in modules.values():
            del vars(module)["forward"]


def _comparison(replacements: Mapping[str, nn.Module], problems: dict[str, str]) -> Observer:
    """Call each replacement as its layer is called, and write down where it returns something else."""

    def compare(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        try:
            same = agree(replacements[name](*args, **kwargs), output)
        except FOREIGN_ERRORS as error:
            problems[name] = _failure(error)
        else:
            if not same:
                problems[name] = "its call computes something else than its weight says"

    return compare


def _hold_product(model: nn.Module, name: str, replacement: nn.Module) -> nn.Module:
    """Let a layer have the product of the factors as its weight; what is factored already becomes whole."""
    layer = model.get_submodule(name)
    if isinstance(layer, LowRankPair | FactoredRecurrent):
        return replace_module(model, name, private_copy(whole_layer(replacement)))
    if isinstance(replacement, LowRankPair):
        assert isinstance(layer.weight, Tensor)
        layer.weight.copy_(recompose(replacement).weight)
    else:
        assert isinstance(replacement, FactoredRecurrent)
        for matrix in matrix_names(replacement):
            getattr(layer, matrix).copy_(weight_of(replacement, matrix))
    return model


def _run(model: nn.Module, inputs: Inputs) -> Tensor:
    with seeded(0):
        return forward(model, inputs)


def _training_problem(model: nn.Module, inputs: Inputs) -> str | None:
    """Why a copy of the model does not run in training mode, or None."""
    try:
        with seeded(0):
            call(private_copy(model).train(), inputs)
    except FOREIGN_ERRORS as error:
        return _failure(error)
    return None


def _failure(error: BaseException) -> str:
    if isinstance(error, AttributeError) and isinstance(error.obj, LowRankPair | FactoredRecurrent):
        return f"the model reads its {error.name!r} without calling it"
    return f"the model does not run with factors in its place ({type(error).__name__}: {one_line(error)})"
