"""A recurrent encoder of event sequences: one embedding a client (CoLES, arXiv 2002.08232, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

PADDING = 0
"""Category that fills up sequences at their end; its embedding is zero and is not trained."""
UNKNOWN = 1
"""Category of values that the training data lacks; its embedding starts at zero."""
FIRST_VALUE = 2
"""Category of the first value of a vocabulary."""

Cell = Literal["gru", "lstm"]
_CELLS: dict[Cell, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class EventEncoder(nn.Module):
    """Embeddings of categories beside numbers, GRU or LSTM, the state of the last event, length one.

    Numbers are normalised by statistics over events alone, padding left out. A recurrent layer reads
    forwards, so what fills up a sequence at its end changes nothing before: the state is taken at the last
    event. A sequence without events gets zeros.

    Args:
        categories: Rows and width of each category's embedding; two rows are for padding and unknown values.
        numbers: Number of numeric values of an event.
        hidden: Number of hidden units.
        cell: ``gru`` or ``lstm``.
        embedding: Width of the output, made by a linear layer. None for the state itself, as in the paper;
            its hidden units cannot be pruned then, because outputs keep their width.

    Raises:
        ValueError: When an event has neither categories nor numbers.
    """

    def __init__(
        self,
        categories: Sequence[tuple[int, int]],
        numbers: int,
        hidden: int,
        cell: Cell = "gru",
        embedding: int | None = None,
    ) -> None:
        super().__init__()
        if not categories and not numbers:
            raise ValueError("an event needs a category or a number, got neither")
        self.embeddings = nn.ModuleList(_table(rows, width) for rows, width in categories)
        self.norm = nn.BatchNorm1d(numbers) if numbers else nn.Identity()
        width = sum(width for _, width in categories) + numbers
        self.recurrent = _CELLS[cell](width, hidden, batch_first=True)
        self.head = nn.Identity() if embedding is None else nn.Linear(hidden, embedding)

    def forward(
        self,
        categories: Tensor | None = None,
        numbers: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Map events, padded at the end, to embeddings (B, hidden) or (B, embedding) of length one.

        Args:
            categories: Category numbers, int64 (B, T, C); None without categories.
            numbers: Numeric values, float32 (B, T, N); None without numbers.
            lengths: Number of events of each sequence, int64 (B,).

        Raises:
            TypeError: When the lengths are missing.
        """
        if lengths is None:
            raise TypeError("`lengths` is needed: the number of events of each sequence")
        parts = [] if categories is None else self._embedded(categories)
        if numbers is not None:
            parts.append(self._normalized(numbers, lengths))
        states, _ = self.recurrent(torch.cat(parts, 2))
        last = (lengths - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        outputs = self.head(states.gather(1, last).squeeze(1))
        return functional.normalize(outputs * (lengths > 0).unsqueeze(1), dim=1)

    def _embedded(self, categories: Tensor) -> list[Tensor]:
        return [table(categories[:, :, column]) for column, table in enumerate(self.embeddings)]

    def _normalized(self, numbers: Tensor, lengths: Tensor) -> Tensor:
        """Values (B, T, N), of which those of padding have no meaning."""
        if not self.norm.training:
            normalized: Tensor = self.norm(numbers.transpose(1, 2)).transpose(1, 2)
            return normalized
        is_event = torch.arange(numbers.shape[1], device=lengths.device) < lengths.unsqueeze(1)
        of_events: Tensor = self.norm(numbers[is_event])
        # Under autocast the norm may answer in another type than it was given.
        filled = of_events.new_zeros(numbers.shape)
        filled[is_event] = of_events
        return filled


def _table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width, padding_idx=PADDING)
    nn.init.zeros_(table.weight.detach()[UNKNOWN])
    return table
