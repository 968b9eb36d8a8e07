"""In which floating-point type a forward pass trains fastest on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

CPU_FEATURES = ("amx_bf16", "avx512_bf16")
"""With either, matrix products of bfloat16 are instructions; without, they are emulated 20 times slower."""

CUDA_CAPABILITY = (8, 0)
"""The first with tensor cores for bfloat16."""


def training_dtype(
    device: torch.device,
    *,
    cpu: Callable[[], Mapping[str, object]] = torch.cpu.get_capabilities,
    cuda: Callable[[torch.device], tuple[int, int]] = torch.cuda.get_device_capability,
) -> torch.dtype | None:
    """``bfloat16`` where the device multiplies in it natively, None where float32 is the right choice.

    bfloat16 has the range of float32, so gradients need no scaling. Any other kind of device gets
    float32.

    Args:
        device: Where the model lies.
        cpu: Names of instruction sets and whether this machine has them.
        cuda: The compute capability of a CUDA device.
    """
    if device.type == "cuda":
        return torch.bfloat16 if cuda(device) >= CUDA_CAPABILITY else None
    if device.type == "cpu":
        features = cpu()
        return torch.bfloat16 if any(features.get(name) for name in CPU_FEATURES) else None
    return None
