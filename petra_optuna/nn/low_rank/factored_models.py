"""The layers of a model that can be factored, all of them factored, and whole again."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from petra_optuna.nn.low_rank.factored_recurrent import (
    FactoredRecurrent,
    assemble_recurrent,
    is_recurrent,
    is_trained,
    matrix_names,
    weight_of,
)
from petra_optuna.nn.low_rank.pairs import (
    LowRankPair,
    decompose,
    is_decomposable,
    pair_factors,
    recompose,
    weight_matrix,
)
from petra_optuna.nn.low_rank.ranks import SVD, Factors
from petra_optuna.nn.low_rank.split_layers import Decomposable
from petra_optuna.nn.surgery import has_hooks, replace_module, shared_layers


def trainable_factors(model: nn.Module) -> dict[str, Factors]:
    """Factors of everything in a model that is factored and not frozen.

    Returns:
        Factors by the name of each pair, and by the torch name of each factored matrix of a recurrent
        layer, for example ``encoder.weight_hh_l0``.
    """
    factors: dict[str, Factors] = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            factors[name] = pair_factors(module)
        elif isinstance(module, FactoredRecurrent):
            for matrix in module.ranks:
                factors[f"{name}.{matrix}" if name else matrix] = module.factors(matrix)
    return {name: pair for name, pair in factors.items() if pair[0].requires_grad}


def decomposable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Pairs, recurrent layers, and decomposable layers outside pairs, by name; none that has hooks."""
    layers: dict[str, nn.Module] = {}
    inside_pairs: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, LowRankPair):
            inside_pairs |= set(module.children())
        elif module in inside_pairs or not (is_decomposable(module) or is_recurrent(module)):
            continue
        if not has_hooks(module):
            layers[name] = module
    return layers


def shared_names(model: nn.Module) -> set[str]:
    """Names of layers and pairs that share a parameter with another name."""
    shared = shared_layers(model)
    return shared | {owner.rpartition(".")[0] for owner in shared}


def factorize_fully(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Replace every whole layer that shares no weight and is not frozen by factors of full rank, in place.

    Returns:
        The model, or its replacement where it is one layer, and the names of the layers: Linear,
        convolutions (by channels), Embedding, GRU and LSTM (each matrix).
    """
    shared = shared_names(model)
    names = []
    for name, layer in decomposable_layers(model).items():
        if name in shared or isinstance(layer, LowRankPair | FactoredRecurrent):
            continue
        if isinstance(layer, nn.GRU | nn.LSTM):
            whole = {matrix: weight_of(layer, matrix) for matrix in matrix_names(layer)}
            factors = {
                matrix: SVD.of(weight).truncate(min(weight.shape)) if is_trained(layer, matrix) else weight
                for matrix, weight in whole.items()
            }
            if not any(is_trained(layer, matrix) for matrix in whole):
                continue
            model = replace_module(model, name, assemble_recurrent(layer, factors))
        else:
            assert isinstance(layer, Decomposable)
            if not layer.weight.requires_grad:
                continue
            model = replace_module(model, name, decompose(layer, min(weight_matrix(layer).shape)))
        names.append(name)
    return model, tuple(names)


def merge_factors(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Replace pairs and factored recurrent layers of these names by plain layers, in place.

    Returns:
        The model, or its replacement where it is one layer.
    """
    for name in names:
        model = replace_module(model, name, whole_layer(model.get_submodule(name)))
    return model


def whole_layer(layer: nn.Module) -> nn.Module:
    """The plain layer that computes what a pair or factored recurrent layer does; others as they are."""
    if isinstance(layer, LowRankPair):
        return recompose(layer)
    if isinstance(layer, FactoredRecurrent):
        whole = {matrix: weight_of(layer, matrix) for matrix in matrix_names(layer)}
        return assemble_recurrent(layer, whole)
    return layer
