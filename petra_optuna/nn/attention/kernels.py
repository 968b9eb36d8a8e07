"""How PyTorch computes attention: as the layers say, or by fused kernels that pass the layers by.

In evaluation without gradients ``nn.TransformerEncoderLayer`` and ``nn.MultiheadAttention`` run one fused
operator. It reads the weights of layers without calling them, so a layer that was replaced has no effect or
is missed, hooks do not run, and products are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def layers_called() -> Iterator[None]:
    """Let attention and encoder layers call every layer that they are made of, inside the block."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def products_called() -> Iterator[None]:
    """Let attention call every layer and every matrix product that it is made of, inside the block.

    ``F.scaled_dot_product_attention`` is computed as two products, which can be counted, measured and
    differentiated twice. It is slower, and needs memory for all scores.
    """
    with layers_called(), sdpa_kernel(SDPBackend.MATH):
        yield
