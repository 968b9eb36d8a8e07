from __future__ import annotations

from petra_optuna.tasks.words import FIRST_WORD, PADDING, UNKNOWN, encoded, vocabulary_of, words_of

TEXTS = ("The cat saw the dog.", "A dog, A DOG!", "")


def test_decoding_gives_the_words_back() -> None:
    vocabulary = vocabulary_of(TEXTS)
    for text, tokens in zip(TEXTS, encoded(TEXTS, vocabulary, length=8).tolist(), strict=True):
        read = [token for token in tokens if token != PADDING]
        assert [vocabulary[token - FIRST_WORD] for token in read] == words_of(text)
        assert tokens[len(read) :] == [PADDING] * (8 - len(read))


def test_the_vocabulary_is_by_frequency_then_alphabet_and_does_not_depend_on_order() -> None:
    assert vocabulary_of(TEXTS) == ("dog", "a", "the", "cat", "saw") == vocabulary_of(reversed(TEXTS))
    assert vocabulary_of(TEXTS, limit=2) == ("dog", "a")


def test_other_words_are_unknown_and_long_texts_are_cut() -> None:
    assert encoded(["the bird the dog"], ("dog", "the"), length=3).tolist() == [[3, UNKNOWN, 3]]
