"""AG News, four topics of news articles, and a GRU over the embeddings of their words.

Zhang, Zhao and LeCun, "Character-level Convolutional Networks for Text Classification", arXiv 1509.01626:
120,000 articles for training and 7,600 for testing, each topic a quarter.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from petra_optuna.errors import DataError
from petra_optuna.models import TextRNN
from petra_optuna.models.text_rnn import PADDING
from petra_optuna.tasks.checks import check_classes, check_split
from petra_optuna.tasks.classification import (
    BaseRecipe,
    LabeledSplits,
    classification_task,
    load_checkpoint,
    trained_base,
)
from petra_optuna.tasks.images import positions_in_class
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Task
from petra_optuna.tasks.text_file import LabeledTexts, read_labeled_texts
from petra_optuna.tasks.words import FIRST_WORD, LENGTH, UNKNOWN, WORD, encoded, vocabulary_of

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
STRIDE = 4
RECIPE = BaseRecipe(epochs=5, batch_size=64, peak_lr=1e-2, label_smoothing=0.05, optimizer="adamw")


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """AG News, a GRU over the embeddings of four words a step; the CSV files from ``data_root``.

    Selection is every tenth training article of each topic in file order, starting with the first. Inputs are
    token numbers int64 (B, 64), see ``tasks.words``.

    Args:
        data_root: A folder with ``train.csv`` and ``test.csv``, or with such a folder ``ag_news``.
        checkpoint: safetensors with the state_dict of ``TextRNN`` of as many tokens. When None the base is
            trained, which takes minutes, and kept under ``cache_dir``.
        cache_dir: Folder in which the base is kept.
        seed: Seed of the base's training.

    Raises:
        DataError: When files or checkpoint are missing, damaged or of another layout.
    """
    data = read_news(data_root)
    make = functools.partial(build_model, len(data.preprocess["vocabulary"]))
    if checkpoint is not None:
        model = make()
        load_checkpoint(model, checkpoint, f"the GRU of stride {STRIDE} on the vocabulary of train.csv")
    else:
        model = trained_base(
            data,
            make,
            RECIPE,
            structure={"stride": STRIDE},
            cache_dir=cache_dir,
            seed=seed,
            notice=f"no checkpoint given: training the base for {RECIPE.epochs} epochs, which takes minutes",
        )
    return classification_task(data, model.eval(), make)


def build_model(words: int, stride: int = STRIDE) -> nn.Module:
    """The untrained network.

    Args:
        words: Number of words of the vocabulary.
        stride: Number of words that the GRU reads at a step.
    """
    return TextRNN(words + FIRST_WORD, len(CLASSES), stride)


def read_news(data_root: Path | None) -> LabeledSplits:
    """The splits that ``build`` describes, token numbers int64 (64,).

    ``preprocess`` holds the vocabulary, without which nobody can make inputs of an exported file.

    Args:
        data_root: Folder of the CSV files.

    Raises:
        DataError: When a file is missing, damaged or of another layout, or a topic has no article.
    """
    train, test = _read(data_root)
    targets = torch.tensor(train.targets)
    selected = positions_in_class(targets) % 10 == 0
    pairs = zip(train.texts, selected.tolist(), strict=True)
    words = vocabulary_of(text for text, is_held in pairs if not is_held)
    tokens = encoded(train.texts, words)
    splits = {
        "train": Split(TensorDataset(tokens[~selected], targets[~selected])),
        "selection": Split(TensorDataset(tokens[selected], targets[selected])),
        "test": Split(TensorDataset(encoded(test.texts, words), torch.tensor(test.targets))),
    }
    for name, split in splits.items():
        check_split(dataclasses.replace(split, name=name))
    check_classes(splits["train"], CLASSES)
    preprocess = {
        "layout": "NL",
        "dtype": "int64",
        "size": [LENGTH],
        "tokens": {
            "pattern": WORD.pattern,
            "lower_case": True,
            "padding": PADDING,
            "unknown": UNKNOWN,
            "first_word": FIRST_WORD,
        },
        "vocabulary": list(words),
    }
    return LabeledSplits("ag_news", splits, CLASSES, preprocess)


def _read(data_root: Path | None) -> tuple[LabeledTexts, LabeledTexts]:
    if data_root is None:
        raise DataError("AG News is not downloaded; give a `data_root` with train.csv and test.csv")
    for root in (data_root, data_root / "ag_news"):
        if (root / "train.csv").is_file():
            train = read_labeled_texts(root / "train.csv", len(CLASSES))
            return train, read_labeled_texts(root / "test.csv", len(CLASSES))
    raise DataError(
        f"no AG News in {data_root}: expected train.csv and test.csv (class, title, description) there or in "
        "its folder ag_news"
    )
