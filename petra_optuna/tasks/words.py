"""Texts as token numbers: words in lower case, a vocabulary of the most frequent ones, one length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from petra_optuna.models.text_rnn import PADDING

WORD = re.compile(r"[a-z0-9]+")
"""What a word is, in lower case. Everything else parts words."""
VOCABULARY = 10_000
"""Largest number of words."""
LENGTH = 64
"""Tokens of a text; what is longer is cut. Of AG News 3 % of the articles are."""
UNKNOWN = 1
FIRST_WORD = 2


def words_of(text: str) -> list[str]:
    """The words of a text in order.

    Example:
        >>> words_of("Oil at $50 a barrel")
        ['oil', 'at', '50', 'a', 'barrel']
    """
    return WORD.findall(text.lower())


def vocabulary_of(texts: Iterable[str], limit: int = VOCABULARY) -> tuple[str, ...]:
    """The most frequent words, the most frequent first; words of one frequency in alphabetical order.

    Args:
        texts: Texts to count in; those of the training split alone.
        limit: Largest number of words.
    """
    counts = Counter(word for text in texts for word in words_of(text))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:limit])


def encoded(texts: Sequence[str], vocabulary: Sequence[str], length: int = LENGTH) -> Tensor:
    """Token numbers int64 (N, length): 0 is padding, 1 a word out of the vocabulary, 2 its first word.

    Args:
        texts: N texts.
        vocabulary: Words in the order of their numbers.
        length: Tokens of a text; longer ones are cut, shorter ones padded at their end.
    """
    numbers = {word: FIRST_WORD + index for index, word in enumerate(vocabulary)}
    tokens = torch.full((len(texts), length), PADDING)
    for row, text in enumerate(texts):
        known = [numbers.get(word, UNKNOWN) for word in words_of(text)[:length]]
        tokens[row, : len(known)] = torch.tensor(known, dtype=torch.int64)
    return tokens
