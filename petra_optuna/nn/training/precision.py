"""The type in which forward passes train: bfloat16 where the device gains by it and the model bears it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from petra_optuna.errors import one_line
from petra_optuna.nn.batch_norm import norms_of
from petra_optuna.nn.copying import private_copy
from petra_optuna.nn.inputs import Inputs, forward

CPU_FEATURES = ("amx_bf16", "avx512_bf16")
"""With either, matrix products of bfloat16 are instructions; without, they are emulated 20 times slower."""

CUDA_CAPABILITY = (8, 0)
"""The first compute capability with tensor cores for bfloat16."""

OUTPUT_TOLERANCE = 0.1
"""Most by which outputs may differ, as a share of their spread over the batch."""

VALUE_TOLERANCE = 0.02
"""The same for a task of values, where such an error adds to the model's own."""

GRADIENT_TOLERANCE = 0.5
"""Most by which the gradient may differ, as a share of its length."""

TARGET_TOLERANCE = 0.01
"""Most by which rounding may move targets, as a share of their spread: no output comes closer to them."""


def training_dtype(
    device: torch.device,
    *,
    cpu: Callable[[], Mapping[str, object]] = torch.cpu.get_capabilities,
    cuda: Callable[[torch.device], tuple[int, int]] = torch.cuda.get_device_capability,
) -> torch.dtype | None:
    """The type in which a forward pass trains fastest on a device.

    It is ``bfloat16`` where the device multiplies in it natively, and None where float32 is the right
    choice. bfloat16 has the range of float32, so gradients need no scaling. Any other kind of device gets
    float32.

    Args:
        device: Device of the model.
        cpu: Names of instruction sets and whether this machine has them.
        cuda: Compute capability of a CUDA device.
    """
    if device.type == "cuda":
        return torch.bfloat16 if cuda(device) >= CUDA_CAPABILITY else None
    if device.type == "cpu":
        features = cpu()
        return torch.bfloat16 if any(features.get(name) for name in CPU_FEATURES) else None
    return None


def forward_in(model: nn.Module, inputs: Inputs, dtype: torch.dtype | None) -> Tensor:
    """A forward pass in the given type, float32 again at its end; None stands for float32."""
    if dtype is None:
        return forward(model, inputs)
    with torch.autocast(inputs_device(model).type, dtype):
        outputs = forward(model, inputs)
    return outputs.float()


def inputs_device(model: nn.Module) -> torch.device:
    """The device of a model's parameters, which its inputs must be on."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def disagreement(
    model: nn.Module,
    batch: tuple[Inputs, Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype,
    fixed: tuple[str, ...] = (),
    output_tolerance: float = OUTPUT_TOLERANCE,
) -> str | None:
    """Why a model is not to be trained in a type shorter than float32; None where it can be.

    Outputs and gradients of one batch are compared with those of float32. Norms take the statistics of the
    batch, as in training; dropout is off, since it would draw other numbers in another type. Targets of
    floating-point numbers must survive their rounding to the type, because outputs are rounded to it.

    Args:
        model: Model; it is not changed.
        batch: Inputs and targets, two samples or more.
        loss: Maps outputs and targets to the loss.
        dtype: The shorter type.
        fixed: Names of norms that stay in evaluation mode.
        output_tolerance: Most by which outputs may differ, as a share of their spread.
    """
    inputs, targets = batch
    if targets.is_floating_point() and (off := _distance(targets.to(dtype), targets)) > TARGET_TOLERANCE:
        return f"rounding to {_name(dtype)} moves the targets by {off:.1%} of their spread"
    private = private_copy(model).eval()
    kept = norms_of(private, fixed)
    for module in private.modules():
        module.training = isinstance(module, _NormBase) and module not in kept
    outputs, gradient = _outputs_and_gradient(private, inputs, targets, loss, None)
    try:
        shorter, shorter_gradient = _outputs_and_gradient(private, inputs, targets, loss, dtype)
    except RuntimeError as error:
        return f"the model does not run in {_name(dtype)}: {one_line(error)}"
    # Written so that NaN fails.
    if not (off := _distance(shorter, outputs)) <= output_tolerance:
        return f"outputs in {_name(dtype)} differ by {off:.1%} of their spread from those in float32"
    off = float((shorter_gradient - gradient).norm() / gradient.norm().clamp_min(torch.finfo().tiny))
    if not off <= GRADIENT_TOLERANCE:
        return f"the gradient in {_name(dtype)} differs by {off:.1%} of its length from that in float32"
    return None


def _outputs_and_gradient(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    outputs = forward_in(model, inputs, dtype)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(
        loss(outputs, targets), trained, allow_unused=True, materialize_grads=True
    )
    return outputs.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def _distance(values: Tensor, exact: Tensor) -> float:
    """Root mean square of the differences as a share of the spread over the batch, or of the size if none."""
    exact, values = exact.double(), values.double()
    scale = (exact - exact.mean(0, keepdim=True)).norm()
    if scale == 0:
        scale = exact.norm().clamp_min(torch.finfo().tiny)
    return float((values - exact).norm() / scale)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
