"""Small networks of several kinds, whose serving is tuned and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from petra_optuna.deploy import lower
from petra_optuna.models import M5, YOLO, ResidualNet, TextRNN
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


ARCHITECTURES: dict[str, Callable[[], Built]] = {
    **{
        f"residual {width}x{blocks}, {side} px": lambda width=width, blocks=blocks, side=side: _image(
            width, blocks, side
        )
        for width, blocks, side in (
            (8, 1, 16),
            (16, 1, 16),
            (16, 2, 16),
            (32, 1, 16),
            (16, 1, 32),
            (32, 2, 32),
        )
    },
    **{f"M5 {width}": lambda width=width: _audio(width) for width in (8, 16, 32)},
    **{
        f"TextRNN stride {stride}, {hidden}": lambda stride=stride, hidden=hidden: _text(stride, hidden)
        for stride, hidden in ((1, 32), (4, 32), (16, 32), (4, 128), (16, 128))
    },
    **{f"YOLO {width}": lambda width=width: _detector(width) for width in (4, 8)},
    **{
        f"perceptron {width}x{depth}": lambda width=width, depth=depth: _table(width, depth)
        for width, depth in ((32, 1), (128, 2), (256, 3), (512, 2))
    },
}


def exported(names: list[str], folder: Path, seed: int = 0) -> Iterator[tuple[str, Path, Tensor]]:
    """Name, file with random weights and example of each architecture."""
    for index, name in enumerate(names):
        with seeded(seed):
            network, example = ARCHITECTURES[name]()
        path = folder / f"{index}-{seed}.onnx"
        lower(network.eval(), (example,), path)
        yield name, path, example
