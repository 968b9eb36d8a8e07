"""A recurrent classifier of texts that reads several words at a step."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

PADDING = 0
"""Token that fills up texts at their end; it is never read."""


class TextRNN(nn.Module):
    """Classifier of token sequences: embedding, mean of ``stride`` neighbours, GRU, mean over steps, linear.

    A GRU takes as many steps as it reads vectors, one after the other, so its time falls with the stride. The
    stride is the architecture parameter of EDGETUNE's text workload (doi 10.1145/3528535.3533273, section
    5.1). The paper leaves open how neighbours are joined; here their embeddings are averaged. Padding counts
    in no average, so that more of it does not change the outputs.

    Args:
        vocabulary: Number of tokens, padding included.
        classes: Number of logits.
        stride: Number of neighbouring embeddings that are averaged before the GRU.
        width: Number of values of an embedding.
        hidden: Number of hidden units of the GRU.
        dropout: Share of the embeddings' values and of the pooled states that is zeroed in training.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        stride: int = 1,
        width: int = 64,
        hidden: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = nn.GRU(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens int64 (B, L), padded at the end, to logits (B, classes)."""
        missing = -tokens.shape[1] % self.stride
        tokens = functional.pad(tokens, (0, missing), value=PADDING) if missing else tokens
        read = (tokens != PADDING).to(self.head.weight.dtype).unsqueeze(2)
        embedded = self.dropout(self.embedding(tokens)) * read
        counts = _windows(read, self.stride).sum(2)
        means = _windows(embedded, self.stride).sum(2) / counts.clamp(min=1.0)
        states, _ = self.recurrent(means)
        steps = counts.clamp(max=1.0)
        pooled = (states * steps).sum(1) / steps.sum(1).clamp(min=1.0)
        return self.head(self.dropout(pooled))  # type: ignore[no-any-return]


def _windows(values: Tensor, stride: int) -> Tensor:
    """Map (B, L, width) to (B, L / stride, stride, width)."""
    return values.unflatten(1, (-1, stride))  # type: ignore[no-any-return, no-untyped-call]
