"""A small one-stage detector without anchors: convolutions, two scales, one prediction a cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16)
"""Pixels of a cell's side, one for each scale."""
OBJECTNESS, SCORES = 4, 5
"""Index of the objectness and of the first class in a prediction; the four values of the box come first."""
PRIOR = 0.01
"""Objectness of every cell at the start (arXiv 1708.02002, section 4.1)."""


def conv(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and SiLU; equal padding."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.SiLU(),
    )


class Bottleneck(nn.Module):
    """A narrow and a wide convolution beside a shortcut, as in YOLOv3 (arXiv 1804.02767, section 2.4).

    Args:
        channels: Number of channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels // 2, 1), conv(channels // 2, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return features + self.body(features)  # type: ignore[no-any-return]


class YOLO(nn.Module):
    """Detector: backbone of four halvings, a path back to the finer scale, one convolution as head of each.

    The output holds the raw predictions of all cells: those of the first stride of ``STRIDES`` first, row by
    row. They are decoded outside of the network (``tasks.detection.boxes``), so that a file has one output.

    Args:
        classes: Number of classes C.
        width: Number of channels of the first convolution; the last has eight times as many.
        dropout: Share of the channels that is zeroed before each head in training.
    """

    def __init__(self, classes: int, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        narrow, middle, wide = 2 * width, 4 * width, 8 * width
        self.stem = nn.Sequential(conv(3, width, stride=2), conv(width, narrow, stride=2), Bottleneck(narrow))
        self.fine = nn.Sequential(conv(narrow, middle, stride=2), Bottleneck(middle))
        self.coarse = nn.Sequential(conv(middle, wide, stride=2), Bottleneck(wide), Bottleneck(wide))
        self.reduce = conv(wide, middle, 1)
        self.merge = conv(2 * middle, middle)
        self.dropout = nn.Dropout2d(dropout)
        self.heads = nn.ModuleList(_head(channels, classes) for channels in (middle, wide))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W), sides multiples of 16, to raw predictions (B, positions, 5 + C)."""
        fine = self.fine(self.stem(images))
        coarse = self.coarse(fine)
        back = functional.interpolate(self.reduce(coarse), scale_factor=2.0, mode="nearest")
        fine = self.merge(torch.cat([fine, back], dim=1))
        scales = zip(self.heads, (fine, coarse), strict=True)
        return torch.cat([head(self.dropout(given)).flatten(2) for head, given in scales], dim=2).mT


def _head(channels: int, classes: int) -> nn.Conv2d:
    """One prediction a cell, which starts with few objects and classes."""
    biases = torch.zeros(SCORES + classes)
    biases[OBJECTNESS:] = math.log(PRIOR / (1 - PRIOR))
    head = nn.Conv2d(channels, SCORES + classes, 1)
    head.bias = nn.Parameter(biases)
    return head
