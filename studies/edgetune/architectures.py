"""Small networks of several kinds, whose serving is tuned and measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from petra_optuna.deploy import lower
from petra_optuna.models import M5, YOLO, ResidualNet, TextRNN
from petra_optuna.nn.initialization import as_if_trained
from petra_optuna.nn.randomness import seeded

Built = tuple[nn.Module, Tensor]


def _image(width: int, blocks: int, side: int) -> Built:
    return ResidualNet(3, 10, (width, 2 * width), blocks), torch.randn(8, 3, side, side)


def _audio(embedding: int) -> Built:
    return M5(1, 10, embedding=embedding), torch.randn(8, 1, 4000)


def _text(stride: int, hidden: int) -> Built:
    return TextRNN(1000, 4, stride=stride, hidden=hidden), torch.randint(1, 1000, (8, 64))


def _detector(width: int) -> Built:
    return YOLO(4, width=width), torch.randn(8, 3, 64, 64)


def _table(width: int, depth: int) -> Built:
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(24, width), *layers, nn.Linear(width, 2)), torch.randn(8, 24)


_KINDS: tuple[tuple[str, Callable[..., Built], tuple[tuple[int, ...], ...]], ...] = (
    ("residual", _image, ((8, 1, 16), (16, 1, 16), (16, 2, 16), (32, 1, 16), (16, 1, 32), (32, 2, 32))),
    ("M5", _audio, ((8,), (16,), (32,))),
    ("TextRNN", _text, ((1, 32), (4, 32), (16, 32), (4, 128), (16, 128))),
    ("YOLO", _detector, ((4,), (8,))),
    ("perceptron", _table, ((32, 1), (128, 2), (256, 3), (512, 2))),
)

ARCHITECTURES: dict[str, Callable[[], Built]] = {
    f"{kind} {'-'.join(map(str, sizes))}": functools.partial(build, *sizes)
    for kind, build, several in _KINDS
    for sizes in several
}
"""Width, blocks and side of images; embedding; stride and hidden units; width; width and depth."""


def every(count: int) -> list[str]:
    """Names of so many architectures, spread over their kinds."""
    names = list(ARCHITECTURES)
    return [names[index * len(names) // count] for index in range(min(count, len(names)))]


def exported(names: list[str], folder: Path, seed: int = 0) -> Iterator[tuple[str, Path, Tensor]]:
    """Name, file with random weights and example of each architecture; the seed makes the weights."""
    for index, name in enumerate(names):
        with seeded(seed):
            network, example = ARCHITECTURES[name]()
        path = folder / f"{index}-{seed}.onnx"
        lower(as_if_trained(network, seed), (example,), path)
        yield name, path, example
