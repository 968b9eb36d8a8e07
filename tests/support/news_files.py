"""Small CSV files in the layout of AG News."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

TOPICS = ("war", "match", "market", "chip")


def news_rows(part: str, count: int) -> list[list[str]]:
    """Articles of alternating topics: a word of the topic, and the number as a word and in binary digits."""
    return [
        [str(topic + 1), f"The {word} news", f"{part} {part}{number} {' '.join(f'{number:07b}')} of {word}"]
        for number in range(count)
        for topic, word in enumerate(TOPICS)
    ]


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file with quotes around all fields, as the official files have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def write_news(root: Path, train: int = 12, test: int = 3) -> Path:
    """Write ``train.csv`` and ``test.csv`` with so many articles of each topic."""
    write_rows(root / "train.csv", news_rows("early", train))
    write_rows(root / "test.csv", news_rows("late", test))
    return root
