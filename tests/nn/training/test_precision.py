"""bfloat16 where the device gains by it, and only where a model's outputs and gradients bear it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra_optuna.nn.training import OUTPUT_TOLERANCE, VALUE_TOLERANCE, disagreement, training_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_vnni": True}, None),
        ({"avx512_bf16": False, "amx_bf16": False}, None),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_gains_with_instructions_for_bfloat16_only(
    features: dict[str, object], expected: torch.dtype | None
) -> None:
    assert training_dtype(CPU, cpu=lambda: features) == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), None), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_a_gpu_gains_from_the_generation_that_has_it(
    capability: tuple[int, int], expected: torch.dtype | None
) -> None:
    assert training_dtype(CUDA, cuda=lambda device: capability) == expected


def test_another_device_stays_in_float32() -> None:
    assert training_dtype(torch.device("meta")) is None


def test_this_machine_is_asked_by_names_that_torch_knows() -> None:
    known = torch.cpu.get_capabilities()
    expected = bool(known.get("amx_bf16") or known.get("avx512_bf16"))
    assert (training_dtype(CPU) == torch.bfloat16) == expected
    if known["architecture"] == "x86_64":
        assert {"amx_bf16", "avx512_bf16"} <= set(known)


def _net(inputs: int, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, outputs)).eval()


def _why(model: nn.Module, inputs: Tensor, targets: Tensor) -> str | None:
    loss = functional.mse_loss if targets.is_floating_point() else functional.cross_entropy
    return disagreement(model, ((inputs,), targets), loss, torch.bfloat16)


def test_an_ordinary_classifier_and_an_ordinary_regression_agree() -> None:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    assert _why(_net(8, 3), inputs, torch.arange(64) % 3) is None
    assert _why(_net(8, 1), inputs, inputs[:, :1]) is None


def test_inputs_that_it_cannot_tell_apart_are_found_by_the_outputs() -> None:
    years = torch.randint(1990, 2026, (64, 1), generator=torch.Generator().manual_seed(1)).float()
    net = nn.Sequential(nn.Linear(1, 2))
    assert "outputs in bfloat16 differ" in (_why(net, years, (years[:, 0] > 2008).long()) or "")


@pytest.mark.parametrize(("offset", "spread"), [(300.0, 5.0), (2000.0, 10.0), (-1e5, 1e4)])
def test_targets_far_from_zero_are_found_before_the_outputs_get_there(offset: float, spread: float) -> None:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    assert "moves the targets" in (_why(_net(8, 1), inputs, offset + spread * inputs[:, :1]) or "")


def test_values_bear_less_than_classes() -> None:
    inputs = 20 + torch.randn(64, 1, generator=torch.Generator().manual_seed(1))
    same = nn.Linear(1, 1)
    nn.init.ones_(same.weight)
    nn.init.zeros_(same.bias)
    given = same, ((inputs,), inputs - 20), functional.mse_loss, torch.bfloat16
    assert disagreement(*given, output_tolerance=OUTPUT_TOLERANCE) is None
    why = disagreement(*given, output_tolerance=VALUE_TOLERANCE)
    assert "outputs in bfloat16 differ" in (why or "")


def test_a_model_near_its_optimum_is_found_by_its_gradient() -> None:
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    net = nn.Sequential(nn.Linear(8, 1))
    assert "gradient" in (_why(net, inputs, net(inputs).detach() + 1e-4) or "")


def test_a_model_that_does_not_run_in_it_is_told_so() -> None:
    class Scattering(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            rows = torch.arange(64)[:, None].expand(64, 4)
            return torch.zeros(len(inputs), 4).scatter(0, rows, super().forward(inputs))

    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    assert "does not run in bfloat16" in (_why(Scattering(8, 4), inputs, torch.arange(64) % 4) or "")


def test_the_model_is_the_same_after_the_comparison() -> None:
    inputs, net = torch.randn(64, 8), _net(8, 3)
    before = copy.deepcopy(net.state_dict())
    _why(net, inputs, torch.arange(64) % 3)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
