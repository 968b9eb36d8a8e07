from __future__ import annotations

import pytest
import torch

from petra_optuna.nn.training.precision import training_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


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
