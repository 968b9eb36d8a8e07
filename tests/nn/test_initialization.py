from __future__ import annotations

import copy

import pytest
import torch
from conformance.models import CASES
from torch import nn

from petra_optuna.nn.initialization import reinitialize
from petra_optuna.nn.inputs import forward
from petra_optuna.nn.normalize import Normalize

DRAWN = ("residual", "inception_time", "gru", "lstm", "embedding_mlp", "functional", "tied_weights")
BARE = {"class_token": "ClassToken", "vision_transformer": "Encoder|VisionTransformer"}
"""Models with a parameter that no ``reset_parameters`` draws, and the module that owns it."""


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(_state(one).items(), _state(other).items(), strict=True)
    return all(name == same and torch.equal(value, again) for (name, value), (same, again) in pairs)


def _spoiled(model: nn.Module) -> nn.Module:
    """The same network as if it had been trained to something else, its batch norms included."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
        for module in other.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                module.running_mean.add_(3.0)
    return other


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_of_the_old_weights_is_left_and_the_seed_decides(name: str) -> None:
    task = CASES[name]()
    fresh = reinitialize(task.model, seed=1)
    assert _equal(fresh, reinitialize(_spoiled(task.model), seed=1))
    assert not _equal(fresh, reinitialize(task.model, seed=2))
    assert not _equal(fresh, task.model)
    assert not fresh.training
    assert bool(forward(fresh, task.example).isfinite().all())


@pytest.mark.parametrize("name", BARE)
def test_a_parameter_that_would_stay_as_it_is_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"({BARE[name]}) has no reset_parameters that draws '"):
        reinitialize(CASES[name]().model, seed=0)


def test_a_weight_that_hides_from_its_module_is_refused() -> None:
    """Weight norm's own parameters are not those that the layer's ``reset_parameters`` fills."""
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="no reset_parameters"):
        reinitialize(nn.Sequential(normed), seed=0)


def test_a_frozen_parameter_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model.get_parameter("0.weight").requires_grad_(False)
    with pytest.raises(ValueError, match=r"'0\.weight' is frozen"):
        reinitialize(model, seed=0)


def test_the_normalisation_of_the_input_stays_and_attention_is_drawn() -> None:
    model = nn.Sequential(Normalize([0.5], [2.0]), nn.MultiheadAttention(4, 2))
    fresh = reinitialize(model, seed=0)
    assert torch.equal(fresh.get_buffer("0.mean"), torch.full((1, 1, 1), 0.5))
    assert torch.equal(fresh.get_buffer("0.std"), torch.full((1, 1, 1), 2.0))
    assert not torch.equal(fresh.get_parameter("1.in_proj_weight"), model.get_parameter("1.in_proj_weight"))


def test_what_a_module_does_to_its_children_stands() -> None:
    class Zeroed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 3)

        def reset_parameters(self) -> None:
            nn.init.zeros_(self.last.weight)

    assert not reinitialize(Zeroed(), seed=0).get_parameter("last.weight").any()


def test_the_global_state_of_randomness_is_left_alone() -> None:
    model, before = nn.Linear(3, 3), torch.random.get_rng_state()
    reinitialize(model, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
