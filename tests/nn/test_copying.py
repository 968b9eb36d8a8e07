from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from petra_optuna.nn.copying import private_copy, store_computed_weights


class Noting(nn.Module):
    """Keeps what its forward pass has computed, alone and in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.noted: Tensor | None = None
        self.all: dict[str, list[Tensor]] = {"seen": []}

    def forward(self, values: Tensor) -> Tensor:
        self.noted = self.layer(values)
        self.all["seen"].append(self.noted)
        return self.noted


def _masked(layer: nn.Module) -> nn.Module:
    masked: nn.Module = prune.l1_unstructured(layer, "weight", 0.5)
    return masked


FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": weight_norm,
    "spectral norm": spectral_norm,
    "mask": _masked,
    "weight norm as a parametrization": parametrizations.weight_norm,
    "spectral norm as a parametrization": parametrizations.spectral_norm,
}


def _model(form: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(FORMS[form](nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_copy_computes_the_same_and_trains_apart(form: str) -> None:
    model, values = _model(form), torch.randn(3, 4)
    model(values).sum().backward()
    copied = private_copy(model).eval()
    model.eval()
    torch.testing.assert_close(copied(values), model(values), rtol=0, atol=0)
    before = model(values)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    torch.testing.assert_close(model(values), before, rtol=0, atol=0)
    assert not torch.equal(copied(values), before)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_stored_weights_compute_the_same_and_leave_other_copies_alone(form: str) -> None:
    model, values = _model(form), torch.randn(3, 4)
    model(values)
    model.eval()
    expected = model(values)
    plain = private_copy(model)
    store_computed_weights(plain)
    assert type(plain[0]) is nn.Linear  # type: ignore[index]
    assert {name for name, _ in plain[0].named_parameters()} == {"weight", "bias"}  # type: ignore[index]
    torch.testing.assert_close(plain(values), expected)
    torch.testing.assert_close(model(values), expected, rtol=0, atol=0)


def test_what_a_forward_pass_noted_does_not_stop_a_copy() -> None:
    model = Noting()
    model(torch.randn(2, 4))
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    copied = private_copy(model)
    assert model.noted is not None
    assert copied.noted is not model.noted
    assert torch.equal(copied.noted, model.noted)  # type: ignore[arg-type]
