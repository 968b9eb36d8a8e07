from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petra_optuna.models import TextRNN
from petra_optuna.models.text_rnn import PADDING


def _network(stride: int) -> nn.Module:
    torch.manual_seed(0)
    return TextRNN(50, 4, stride, width=8, hidden=8).eval()


def _texts(count: int = 5, length: int = 24) -> Tensor:
    """Texts of several lengths, padded at their end."""
    torch.manual_seed(1)
    tokens = torch.randint(1, 50, (count, length))
    for row, own in enumerate((length, 1, 7, 8, 17)):
        tokens[row, own:] = PADDING
    return tokens


@pytest.mark.parametrize("stride", [1, 3, 8, 32])
def test_more_padding_changes_nothing(stride: int) -> None:
    network, texts = _network(stride), _texts()
    longer = torch.nn.functional.pad(texts, (0, 40), value=PADDING)
    torch.testing.assert_close(network(longer), network(texts))
    one_by_one = torch.cat([network(text[text != PADDING][None]) for text in texts])
    torch.testing.assert_close(one_by_one, network(texts))


@pytest.mark.parametrize("stride", [2, 5])
def test_repeated_words_read_at_once_are_each_word_read_once(stride: int) -> None:
    texts = _texts()
    repeated = _network(stride)(texts.repeat_interleave(stride, dim=1))
    torch.testing.assert_close(repeated, _network(1)(texts))


def test_the_stride_divides_the_steps_and_no_weight_depends_on_it() -> None:
    steps = {}
    for stride in (1, 8, 32):
        network = _network(stride)
        network.get_submodule("recurrent").register_forward_hook(
            lambda module, inputs, outputs, stride=stride: steps.update({stride: inputs[0].shape[1]})
        )
        network(torch.ones(2, 64, dtype=torch.int64))
        network.load_state_dict(_network(1).state_dict())
    assert steps == {1: 64, 8: 8, 32: 2}


def test_a_text_without_words_has_an_answer() -> None:
    assert torch.isfinite(_network(4)(torch.full((2, 10), PADDING))).all()
