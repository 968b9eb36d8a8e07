from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra_optuna.nn.inputs import Inputs, batch_size_of, forward, input_names, take, to_feeds


class Weighted(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + 10 * right


LEFT, RIGHT = torch.arange(6.0).view(3, 2), torch.arange(6.0, 12.0).view(3, 2)


@pytest.mark.parametrize("inputs", [(LEFT, RIGHT), {"right": RIGHT, "left": LEFT}])
def test_positional_and_keyword_inputs_call_the_model_alike(inputs: Inputs) -> None:
    assert torch.equal(forward(Weighted(), inputs), LEFT + 10 * RIGHT)
    assert batch_size_of(inputs) == 3
    assert torch.equal(forward(Weighted(), take(inputs, 2)), (LEFT + 10 * RIGHT)[:2])


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ((LEFT,), ("input",)),
        ((LEFT, RIGHT), ("input_0", "input_1")),
        ({"b": LEFT, "a": RIGHT}, ("b", "a")),
    ],
)
def test_feeds_carry_each_tensor_under_its_graph_name(inputs: Inputs, names: tuple[str, ...]) -> None:
    feeds = to_feeds(inputs)
    assert input_names(inputs) == tuple(feeds) == names
    given = inputs.values() if isinstance(inputs, dict) else inputs
    for array, tensor in zip(feeds.values(), given, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


def test_a_model_with_two_outputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(TypeError, match="must return one tensor, got tuple"):
        forward(Two(), (LEFT,))
