"""How many samples a model can take in one call without filling the memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from petra_optuna.nn.attention.kernels import products_called
from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, tensors

MOST_SAMPLES = 256
_CALL_BYTES = 256 * 2**20
"""Most bytes of one operator's inputs and outputs; a runtime holds those of a few operators at once."""


def samples_per_call(model: nn.Module, inputs: Inputs) -> int:
    """Samples that one call may take: up to 256, fewer where the largest operator would need 256 MB.

    It depends on the model's structure and its inputs' shapes alone, so that a quality is computed in the
    same batches each time.

    Args:
        model: Model in evaluation mode.
        inputs: Batch of any size.
    """
    largest = _LargestOperator(model, inputs)
    with torch.no_grad(), products_called(), largest:
        forward(model, inputs)
    affordable = _CALL_BYTES * batch_size_of(inputs) // largest.bytes
    return max(1, min(MOST_SAMPLES, affordable))


class _LargestOperator(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is untyped
    """Counts the bytes that the largest operator reads and writes, the model's own weights left out.

    Attributes:
        bytes: Those bytes; at first those of the model's inputs.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = max(1, sum(tensor.nbytes for tensor in tensors(inputs)))
        stored = (*model.parameters(), *model.buffers())
        self._stored = {tensor.untyped_storage().data_ptr() for tensor in stored}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        seen = {
            tensor.untyped_storage().data_ptr(): tensor.nbytes
            for tensor in tree_leaves((args, outputs))
            if isinstance(tensor, Tensor)
        }
        self.bytes = max(self.bytes, sum(size for place, size in seen.items() if place not in self._stored))
        return outputs
