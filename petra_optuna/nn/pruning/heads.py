"""Heads of attention modules: which weights belong to each, which matter least, and their removal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from petra_optuna.nn.attention.layered import PARTS
from petra_optuna.nn.low_rank import LowRankPair
from petra_optuna.nn.pruning.forms import FORMS, Form
from petra_optuna.nn.pruning.importance import WeightScores, normalize_across_groups
from petra_optuna.nn.surgery import shared_layers


@dataclasses.dataclass(frozen=True)
class Heads:
    """The heads of one attention module.

    Attributes:
        name: Name of the module.
        module: Module of that name.
        form: Names of its parts.
        count: Number of heads.
        width: Number of features of each head.
        makers: Layers that make queries, keys and values.
        output_name: Name of the layer that reads the heads.
        output: Layer of that name, or the first layer of the pair of that name.
    """

    name: str
    module: nn.Module
    form: Form
    count: int
    width: int
    makers: tuple[nn.Linear, ...]
    output_name: str
    output: nn.Linear

    def scores(self, scores: WeightScores) -> Tensor | None:
        """Sum of the scores of the weights that leave with each head (heads,); None where none is scored."""
        scored = [
            scores[parameter].movedim(dimension, 0).reshape(parts, self.count, -1)
            for _, _, parameter, dimension, parts in self._owned()
            if parameter in scores
        ]
        if not scored:
            return None
        return torch.stack([values.sum((0, 2)) for values in scored]).sum(0)

    def layers(self) -> tuple[set[nn.Module], nn.Module]:
        """The layers whose outputs are heads, and the one whose inputs are."""
        return {*self.makers, *self._optional_layers()}, self.output

    def columns(self, heads: Sequence[int]) -> list[int]:
        """Inputs of the output layer that hold these heads."""
        return [head * self.width + feature for head in sorted(heads) for feature in range(self.width)]

    @torch.no_grad()
    def remove(self, heads: Sequence[int]) -> None:
        """Remove these heads with all that belongs to them, in place."""
        kept = [head for head in range(self.count) if head not in heads]
        for owner, name, parameter, dimension, parts in list(self._owned()):
            before, behind = parameter.shape[:dimension], parameter.shape[dimension + 1 :]
            split = parameter.reshape(*before, parts, self.count, -1, *behind)
            index = torch.tensor(kept, device=parameter.device)
            left = split.index_select(dimension + 1, index).flatten(dimension, dimension + 2)
            setattr(owner, name, nn.Parameter(left, requires_grad=parameter.requires_grad))
        for layer in (*self.makers, *self._optional_layers()):
            layer.out_features = layer.weight.shape[0]
        self.output.in_features = self.output.weight.shape[1]
        setattr(self.module, self.form.heads, len(kept))
        for number in self.form.widths:
            if hasattr(self.module, number):
                setattr(self.module, number, len(kept) * self.width)

    def _owned(self) -> Iterator[tuple[nn.Module, str, nn.Parameter, int, int]]:
        """Owner and name of each parameter that holds heads, their dimension, and equal parts along it."""
        parts = PARTS if self.form.fused else 1
        for layer in self.makers:
            for name, parameter in layer.named_parameters(recurse=False):
                yield layer, name, parameter, 0, parts
        for name, parameter in self.output.named_parameters(recurse=False):
            if name == "weight":
                yield self.output, name, parameter, 1, 1
        for path, (dimension, parts) in self.form.optional.items():
            owner, name = _owner(self.module, path)
            held = getattr(owner, name, None)
            if owner is not None and isinstance(held, nn.Parameter):
                yield owner, name, held, dimension, parts

    def _optional_layers(self) -> Iterator[nn.Linear]:
        for path in self.form.optional:
            owner, _ = _owner(self.module, path)
            if isinstance(owner, nn.Linear):
                yield owner


@dataclasses.dataclass(frozen=True)
class HeadCandidate:
    """The heads of one attention module, of which some may leave.

    Attributes:
        heads: Heads of the module.
        scores: Score of each head (heads,), on the scale of ``normalize_across_groups``.
    """

    heads: Heads
    scores: Tensor

    @classmethod
    def of(cls, heads: Heads, scores: WeightScores) -> HeadCandidate | str:
        """The candidate, or the reason why it is none."""
        summed = heads.scores(scores)
        if summed is None:
            return "the criterion has nothing to score in it"
        # A head's share is spread over its features, so that it compares with channels.
        return cls(heads, normalize_across_groups(summed, scores) / heads.width)

    @property
    def name(self) -> str:
        """Name of the group."""
        return f"{self.heads.name} heads"

    @property
    def channels(self) -> int:
        """Number of features of all heads."""
        return self.heads.count * self.heads.width

    @property
    def channels_per_unit(self) -> int:
        """Number of features of a head."""
        return self.heads.width

    def removable_blocks(self) -> list[tuple[float, int]]:
        """Score of each head that may leave, least important first, and 1; one head stays."""
        return [(float(score), 1) for score in self.scores.sort().values[:-1]]

    def least_important(self, count: int) -> list[int]:
        """Numbers of the ``count`` least important heads."""
        return sorted(torch.argsort(self.scores, stable=True)[:count].tolist())


def find_heads(model: nn.Module) -> tuple[list[Heads], dict[str, str]]:
    """The heads of every attention module of a known form.

    Returns:
        The heads of modules with more than one, and the reason for each that cannot lose any, by its name.
    """
    shared = shared_layers(model)
    prunable: list[Heads] = []
    left_out: dict[str, str] = {}
    for name, module in model.named_modules():
        heads = next((heads for form in FORMS if (heads := _read(model, name, module, form))), None)
        if heads is None:
            continue
        names = {name, heads.output_name, *(f"{name}.{part}" for part, _ in module.named_modules() if part)}
        if heads.count == 1:
            left_out[name] = "its attention has one head"
        elif names & shared:
            left_out[name] = "its attention shares a weight with another layer"
        else:
            prunable.append(heads)
    return prunable, left_out


def reading_layer(layer: nn.Module) -> nn.Module:
    """The layer whose columns are the inputs of a layer or pair."""
    return layer.first if isinstance(layer, LowRankPair) else layer


def making_layer(layer: nn.Module) -> nn.Module:
    """The layer whose rows are the outputs of a layer or pair."""
    return layer.second if isinstance(layer, LowRankPair) else layer


def _read(model: nn.Module, name: str, module: nn.Module, form: Form) -> Heads | None:
    """The heads of a module, or None where it is not of the form."""
    count = getattr(module, form.heads, None)
    if not isinstance(count, int) or count < 1:
        return None
    path = form.output
    if path.startswith(".."):
        path, module_above = path[2:], model.get_submodule(name.rpartition(".")[0])
        output_name = f"{name.rpartition('.')[0]}.{path}".lstrip(".")
    else:
        module_above, output_name = module, f"{name}.{path}".lstrip(".")
    whole = _layer(module_above, path)
    output = reading_layer(whole) if whole is not None else None
    makers = [_layer(module, part) for part in ((form.fused,) if form.fused else form.separate)]
    writers = [making_layer(maker) for maker in makers if maker is not None]
    linear = [layer for layer in writers if type(layer) is nn.Linear]
    if type(output) is not nn.Linear or len(linear) != len(makers) or output.in_features % count:
        return None
    rows = output.in_features * (PARTS if form.fused else 1)
    if any(layer.out_features != rows for layer in linear):
        return None
    if output is not whole:
        output_name += ".0"
    width = output.in_features // count
    return Heads(name, module, form, count, width, tuple(linear), output_name, output)


def _layer(module: nn.Module, path: str) -> nn.Module | None:
    for part in path.split("."):
        child = module._modules.get(part)
        if child is None:
            return None
        module = child
    return module


def _owner(module: nn.Module, path: str) -> tuple[nn.Module | None, str]:
    """Module below ``module`` that holds a parameter, or None, and the parameter's name."""
    above, _, name = path.rpartition(".")
    owner = _layer(module, above) if above else module
    return (None if owner is None else making_layer(owner)), name
