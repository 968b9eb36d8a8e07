from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from petra_optuna.models import EventEncoder
from petra_optuna.models.event_encoder import UNKNOWN, Cell

AGE = ((800, 16), (250, 16))
ALFA = (
    *((13, 2), (9, 2), (24, 4), (6, 32), (5, 1), (9, 4)),
    *((5, 1), (110, 32), (30, 16), (9, 2), (25, 4), (55, 4)),
)
LENGTHS = (7, 1, 4, 7, 2)


def _encoder(cell: Cell = "gru", embedding: int | None = None) -> EventEncoder:
    torch.manual_seed(0)
    encoder = EventEncoder(((9, 3), (6, 2)), 2, 8, cell, embedding)
    encoder.norm.running_mean.normal_()
    encoder.norm.running_var.uniform_(0.5, 2.0)
    return encoder.eval()


def _batch(lengths: tuple[int, ...] = LENGTHS, time: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(1)
    categories = torch.stack([torch.randint(1, rows, (len(lengths), time)) for rows in (9, 6)], 2)
    numbers = torch.randn(len(lengths), time, 2)
    for row, own in enumerate(lengths):
        categories[row, own:], numbers[row, own:] = 0, 0.0
    return {"categories": categories, "numbers": numbers, "lengths": torch.tensor(lengths)}


def _alone(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    own = int(batch["lengths"][row])
    return {
        "categories": batch["categories"][row : row + 1, :own],
        "numbers": batch["numbers"][row : row + 1, :own],
        "lengths": batch["lengths"][row : row + 1],
    }


@pytest.mark.parametrize("embedding", [None, 3])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_each_sequence_of_a_mixed_batch_gets_what_it_gets_alone(cell: Cell, embedding: int | None) -> None:
    encoder, batch = _encoder(cell, embedding), _batch()
    together = encoder(**batch)
    alone = torch.cat([encoder(**_alone(batch, row)) for row in range(len(LENGTHS))])
    torch.testing.assert_close(alone, together)
    assert together.shape == (5, embedding or 8)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("training", [False, True])
def test_what_fills_up_a_sequence_changes_nothing(training: bool) -> None:
    encoder, batch = _encoder().train(training), _batch()
    other = copy.deepcopy(encoder)
    filled = {name: value.clone() for name, value in batch.items()}
    for row, own in enumerate(LENGTHS):
        filled["categories"][row, own:], filled["numbers"][row, own:] = 5, 1e6
    torch.testing.assert_close(other(**filled), encoder(**batch))
    torch.testing.assert_close(other.norm.running_mean, encoder.norm.running_mean)
    torch.testing.assert_close(other.norm.running_var, encoder.norm.running_var)


def test_the_statistics_of_training_are_those_of_the_events() -> None:
    encoder, batch = _encoder().train(), _batch()
    encoder.norm.momentum = 1.0
    encoder(**batch)
    events = torch.cat([batch["numbers"][row, :own] for row, own in enumerate(LENGTHS)])
    torch.testing.assert_close(encoder.norm.running_mean, events.mean(0))
    torch.testing.assert_close(encoder.norm.running_var, events.var(0))


def test_the_embedding_is_the_state_after_the_last_event() -> None:
    encoder = EventEncoder((), 2, 4).eval()
    numbers = torch.randn(1, 5, 2)
    states, _ = encoder.recurrent(encoder.norm(numbers.transpose(1, 2)).transpose(1, 2))
    given = encoder(numbers=numbers, lengths=torch.tensor([3]))
    torch.testing.assert_close(given[0], nn.functional.normalize(states[0, 2], dim=0))


def test_a_sequence_without_events_gets_zeros() -> None:
    assert not _encoder(embedding=3)(**_batch((0, 2), 2))[0].any()


def test_unknown_values_and_padding_start_at_zero() -> None:
    for table in _encoder().embeddings:
        assert not table.weight[: UNKNOWN + 1].any()
        assert table.weight[UNKNOWN + 1 :].any(1).all()


@pytest.mark.parametrize(
    ("categories", "numbers", "hidden", "expected"),
    [
        (AGE, 1, 800, 800 * 16 + 250 * 16 + 2 + 3 * 800 * (33 + 800) + 2 * 3 * 800),
        (ALFA, 2, 1024, 4716 + 4 + 3 * 1024 * (106 + 1024) + 2 * 3 * 1024),
    ],
    ids=["age", "alfa"],
)
def test_the_encoders_of_the_papers_data_have_their_number_of_weights(
    categories: tuple[tuple[int, int], ...], numbers: int, hidden: int, expected: int
) -> None:
    with torch.device("meta"):
        encoder = EventEncoder(categories, numbers, hidden)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == expected


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ValueError, match="an event needs a category or a number"):
        EventEncoder((), 0, 4)
    with pytest.raises(TypeError, match="`lengths` is needed"):
        _encoder()(categories=_batch()["categories"])
