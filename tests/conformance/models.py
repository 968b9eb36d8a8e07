"""The models that every operation must work on, each as a small task with random data and weights.

What they have in common with the models that people bring is their structure, not their quality: 64
training and 32 selection samples, widths that leave pruning and low rank something to do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.models import InceptionTime, ResidualNet
from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import Context
from petra_optuna.pipeline import Operation, Recipe, declared_fields
from petra_optuna.tasks import Task
from petra_optuna.tasks.torchvision_shim import load_torchvision

from .attention_models import Encoder, bert, deit, distilbert, swin  # also as a part of ``tests``

CLASSES = 4
TRAIN, SELECTION = 64, 32
TOKENS, LENGTH = 50, 12

Draw = Callable[[int], Tensor]


def images(side: int, channels: int = 3) -> Draw:
    """Maps a count N to images (N, channels, side, side)."""
    return lambda count: torch.randn(count, channels, side, side)


def series(channels: int, length: int) -> Draw:
    """Maps a count N to series (N, channels, length)."""
    return lambda count: torch.randn(count, channels, length)


def tokens(count: int) -> Tensor:
    """Sequences of token numbers (N, LENGTH)."""
    return torch.randint(TOKENS, (count, LENGTH))


class Recurrent(nn.Module):
    """A stacked, bidirectional encoder of series (B, T, features), its mean over time, and a head.

    Args:
        kind: ``nn.GRU`` or ``nn.LSTM``.
        batch_first: Whether the encoder reads (B, T, features) or (T, B, features).
    """

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.encoder = kind(12, 32, num_layers=2, batch_first=batch_first, bidirectional=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, steps: Tensor) -> Tensor:
        """Map (B, T, 12) to logits (B, CLASSES)."""
        states, _ = self.encoder(steps if self.batch_first else steps.transpose(0, 1))
        return self.head(states.mean(1 if self.batch_first else 0))  # type: ignore[no-any-return]


class EmbeddingMlp(nn.Module):
    """Embedded tokens side by side through two wide layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 32)
        self.mlp = nn.Sequential(
            nn.Linear(LENGTH * 32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
        )

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (B, LENGTH) to logits (B, CLASSES)."""
        return self.mlp(self.embedding(numbers).flatten(1))  # type: ignore[no-any-return]


class Functional(nn.Module):
    """Layers joined by functions only, with a branch that is concatenated and one that multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, padding=1)
        self.conv2 = nn.Conv2d(24, 24, 3, padding=1)
        self.gate = nn.Conv2d(24, 24, 1)
        self.norm = nn.BatchNorm2d(48)
        self.fc1 = nn.Linear(48 * 16, 64)
        self.fc2 = nn.Linear(64, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (B, 3, 16, 16) to logits (B, CLASSES)."""
        first = functional.max_pool2d(functional.relu(self.conv1(pictures)), 2)
        second = functional.silu(self.conv2(first)) * torch.sigmoid(self.gate(first))
        joined = self.norm(torch.cat([first, second], dim=1))
        flat = functional.avg_pool2d(joined, 2).reshape(len(pictures), -1)
        hidden = functional.dropout(functional.gelu(self.fc1(flat)), 0.1, self.training)
        return self.fc2(hidden)  # type: ignore[no-any-return]


class Shared(nn.Module):
    """One convolution and one layer that are called twice each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.again = nn.Conv2d(32, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.middle = nn.Linear(32, 32)
        self.wide = nn.Linear(32, 64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (B, 3, H, W) to logits (B, CLASSES)."""
        features = self.stem(pictures).relu()
        features = self.norm(self.again(self.again(features).relu()).relu()).amax((2, 3))
        features = self.middle(self.middle(features).relu()).relu()
        return self.head(self.wide(features).relu())  # type: ignore[no-any-return]


class Tied(nn.Module):
    """A decoder that reads with the embedding's own weight, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 32)
        self.hidden = nn.Sequential(nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 32), nn.ReLU())
        self.decoder = nn.Linear(32, TOKENS, bias=False)
        self.decoder.weight = self.embedding.weight
        self.head = nn.Linear(TOKENS, CLASSES)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (B, LENGTH) to logits (B, CLASSES)."""
        states = self.hidden(self.embedding(numbers)).mean(1)
        return self.head(self.decoder(states).relu())  # type: ignore[no-any-return]


class ClassToken(nn.Module):
    """A learned token in front of embedded patches, mixed along the sequence and read at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.mix = nn.Linear(17, 17)
        self.norm = nn.LayerNorm(32)
        self.mlp = nn.Sequential(nn.Linear(32, 96), nn.GELU(), nn.Linear(96, 32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (B, 3, 16, 16) to logits (B, CLASSES)."""
        patches = self.patches(pictures).flatten(2).transpose(1, 2)
        sequence = torch.cat([self.token.expand(len(pictures), -1, -1), patches], dim=1)
        sequence = sequence + self.mix(sequence.transpose(1, 2)).transpose(1, 2)
        sequence = sequence + self.mlp(self.norm(sequence))
        return self.head(sequence[:, 0])  # type: ignore[no-any-return]


class Scaled(nn.Module):
    """A module whose call takes a plain number beside the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(48, CLASSES)

    def forward(self, pictures: Tensor, scale: float = 1.0) -> Tensor:
        """Map (B, 3, H, W) to logits (B, CLASSES)."""
        return self.head(self.body(pictures * scale).mean((2, 3)))  # type: ignore[no-any-return]


def node(kind: type[Operation]) -> Operation:
    """The operation as the tables run it: one epoch, else its defaults and ``FIELDS``."""
    epochs = {"epochs": 1} if "epochs" in {field.name for field in declared_fields(kind)} else {}
    return kind(**epochs, **FIELDS.get(kind.name, {}))


def context(task: Task) -> Context:
    """What the tables hand to an operation."""
    return Context(task=task, recipe=Recipe(batch_size=32), seed=7, epochs=1)


def _task(name: str, build: Callable[[], nn.Module], draw: Draw) -> Task:
    with seeded(0):
        model = build().eval()
        parts = [TensorDataset(draw(count), torch.arange(count) % CLASSES) for count in (TRAIN, SELECTION)]
        # Untrained statistics let the signal of a deep network die: every output would be nearly zero.
        reestimate_batch_norm(model, [(parts[0].tensors[0],)])
    train, selection = (DataLoader(part, batch_size=32) for part in parts)
    return Task.from_loaders(model, train, selection, metric="accuracy", name=name)


def _vision_transformer() -> nn.Module:
    model: nn.Module = load_torchvision().models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=96, num_classes=CLASSES
    )
    nn.init.normal_(model.get_parameter("heads.head.weight"), std=0.2)  # torchvision's are zero
    return model


def _densenet() -> nn.Module:
    model: nn.Module = load_torchvision().models.DenseNet(
        growth_rate=16, block_config=(2, 2), num_init_features=32, num_classes=CLASSES
    )
    return model


_MODELS: Mapping[str, tuple[Callable[[], nn.Module], Draw]] = {
    "residual": (lambda: ResidualNet(1, CLASSES, widths=(16, 32), blocks=1), images(8, channels=1)),
    "resnet18": (lambda: load_torchvision().models.resnet18(num_classes=CLASSES), images(32)),
    "mobilenet_v3_small": (
        lambda: load_torchvision().models.mobilenet_v3_small(num_classes=CLASSES),
        images(32),
    ),
    "densenet": (_densenet, images(32)),
    "vision_transformer": (_vision_transformer, images(16)),
    "inception_time": (
        lambda: InceptionTime(3, CLASSES, filters=16, depth=3, bottleneck=16),
        series(3, 48),
    ),
    "gru": (lambda: Recurrent(nn.GRU, batch_first=True), series(5, 12)),
    "lstm": (lambda: Recurrent(nn.LSTM, batch_first=False), series(5, 12)),
    "embedding_mlp": (EmbeddingMlp, tokens),
    "functional": (Functional, images(16)),
    "shared_modules": (Shared, images(8)),
    "tied_weights": (Tied, tokens),
    "class_token": (ClassToken, images(16)),
    "number_argument": (Scaled, images(16)),
    "transformer_encoder": (lambda: Encoder(TOKENS, CLASSES), tokens),
    "swin": (lambda: swin(CLASSES), images(16)),
    "deit": (lambda: deit(CLASSES), images(16)),
    "bert": (lambda: bert(TOKENS, CLASSES), tokens),
    "distilbert": (lambda: distilbert(TOKENS, CLASSES), tokens),
}

CASES: Mapping[str, Callable[[], Task]] = {
    name: functools.partial(_task, name, build, draw) for name, (build, draw) in _MODELS.items()
}

LARGE = ("resnet18", "mobilenet_v3_small", "swin")
"""Models that take long; ``residual``, ``densenet`` and ``deit`` are of their kind."""
"""Name of a model to a function that makes its task; the same one each time."""

FIELDS: Mapping[str, Mapping[str, Any]] = {"low_rank": {"rule": "share"}}
"""By operation: random weights have flat spectra, so a share of the energy would leave most layers whole."""

_NO_BLOCK = "no residual block and no layer that maps a shape onto itself"

EXPECTED_FAILURES: Mapping[tuple[str, str], str] = {
    ("drop_blocks", "densenet"): _NO_BLOCK,
    ("drop_blocks", "gru"): _NO_BLOCK,
    ("drop_blocks", "lstm"): _NO_BLOCK,
    ("drop_blocks", "tied_weights"): _NO_BLOCK,
    ("drop_blocks", "number_argument"): _NO_BLOCK,
    ("drop_blocks", "transformer_encoder"): _NO_BLOCK,  # a layer that ends in a norm changes its input
    ("drop_blocks", "shared_modules"): "none of the 2 blocks of the model can be dropped",
}
"""Operation and model to a part of the reason why it cannot work there at all."""
