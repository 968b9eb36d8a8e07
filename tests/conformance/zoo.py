"""Models of the kinds that people bring, by their real architectures, with random data and weights.

They are too large for a test of every operation; ``studies.operations_by_models`` runs them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.nn.batch_norm import reestimate_batch_norm
from petra_optuna.nn.outputs import ChosenOutput, choose, main_output
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks import Metric, Task
from petra_optuna.tasks.torchvision_shim import load_torchvision

from .attention_models import Encoder  # also as a part of ``tests``
from .models import CLASSES, LENGTH, TOKENS, images, series, tokens

TRAIN, SELECTION, SIDE = 32, 16, 32
DENSE = ("unet", "lraspp", "deeplabv3")
"""Models that give each pixel a class."""

Inputs = Callable[[int], tuple[Tensor, ...]]
"""Maps a count N to the input tensors of N samples."""


class UNet(nn.Module):
    """Two halvings, two doublings by transposed convolutions, and the maps of equal size side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.bottom = _double(3, 16), _double(16, 32), _double(32, 64)
        self.up_second = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.up_first = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.join_second, self.join_first = _double(64, 32), _double(32, 16)
        self.head = nn.Conv2d(16, CLASSES, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (B, 3, H, W) to logits (B, CLASSES, H, W)."""
        first = self.first(pictures)
        second = self.second(functional.max_pool2d(first, 2))
        bottom = self.bottom(functional.max_pool2d(second, 2))
        second = self.join_second(torch.cat([self.up_second(bottom), second], dim=1))
        return self.head(self.join_first(torch.cat([self.up_first(second), first], dim=1)))  # type: ignore[no-any-return]


class CausalBlock(nn.Module):
    """A residual pair of dilated convolutions that see no later step, as in temporal convolutional networks.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        dilation: Distance of the taps.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.first = nn.Conv1d(inputs, outputs, 3, dilation=dilation)
        self.second = nn.Conv1d(outputs, outputs, 3, dilation=dilation)
        self.skip = nn.Conv1d(inputs, outputs, 1)

    def forward(self, steps: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T)."""
        past = (2 * self.dilation, 0)
        hidden = self.first(functional.pad(steps, past)).relu()
        hidden = self.second(functional.pad(hidden, past)).relu()
        return (hidden + self.skip(steps)).relu()  # type: ignore[no-any-return]


class Tcn(nn.Module):
    """Three causal blocks and a head that reads the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(CausalBlock(3, 24, 1), CausalBlock(24, 24, 2), CausalBlock(24, 32, 4))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, steps: Tensor) -> Tensor:
        """Map (B, 3, T) to logits (B, CLASSES)."""
        return self.head(self.blocks(steps)[..., -1])  # type: ignore[no-any-return]


class WaveNet(nn.Module):
    """Gated dilated convolutions whose skip outputs are summed."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, channels, 1)
        dilations = (1, 2, 4, 8)
        self.gated = nn.ModuleList(nn.Conv1d(channels, 2 * channels, 2, dilation=d) for d in dilations)
        self.residual = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in dilations)
        self.skip = nn.ModuleList(nn.Conv1d(channels, 48, 1) for _ in dilations)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(48, 48, 1), nn.ReLU(), nn.Conv1d(48, CLASSES, 1))

    def forward(self, steps: Tensor) -> Tensor:
        """Map (B, 1, T) to logits (B, CLASSES), the mean over time."""
        hidden, total = self.stem(steps), torch.zeros(())
        for gated, residual, skip in zip(self.gated, self.residual, self.skip, strict=True):
            past = functional.pad(hidden, (cast(nn.Conv1d, gated).dilation[0], 0))
            signal, gate = gated(past).chunk(2, dim=1)
            active = torch.tanh(signal) * torch.sigmoid(gate)
            hidden, total = hidden + residual(active), total + skip(active)
        return self.head(total).mean(-1)  # type: ignore[no-any-return]


class WithLengths(nn.Module):
    """A recurrent encoder of padded series whose head reads the mean over each series' own steps.

    Args:
        kind: ``nn.GRU`` or ``nn.LSTM``.
    """

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.encoder = kind(5, 32, batch_first=True)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, T, 5) and lengths (B,) to logits (B, CLASSES)."""
        states, _ = self.encoder(steps)
        inside = (torch.arange(steps.shape[1]) < lengths[:, None]).to(states.dtype)[..., None]
        return self.head((states * inside).sum(1) / inside.sum(1))  # type: ignore[no-any-return]


class TwoTowers(nn.Module):
    """Two inputs with an encoder each, joined by their product and their difference."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(TOKENS, 24)
        self.left = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 32))
        self.right = nn.Sequential(nn.Conv2d(3, 24, 3, stride=2), nn.BatchNorm2d(24), nn.ReLU())
        self.project = nn.Linear(24, 32)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, numbers: Tensor, pictures: Tensor) -> Tensor:
        """Map (B, LENGTH) and (B, 3, H, W) to logits (B, CLASSES)."""
        left = self.left(self.words(numbers).mean(1))
        right = self.project(self.right(pictures).mean((2, 3)))
        return self.head(torch.cat([left * right, left - right], dim=1))  # type: ignore[no-any-return]


class MultiTask(nn.Module):
    """One trunk, logits and a regression."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.ReLU()
        )
        self.classes = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, CLASSES))
        self.value = nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to ``logits`` (B, CLASSES) and ``value`` (B, 1)."""
        features = self.trunk(pictures).mean((2, 3))
        return {"logits": self.classes(features), "value": self.value(features)}


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()),
        *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()),
    )


def _torchvision(name: str, package: str = "", **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        models = load_torchvision().models
        place = getattr(models, package) if package else models
        return cast(nn.Module, getattr(place, name)(weights=None, num_classes=CLASSES, **arguments))

    return build


def _timm(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        load_torchvision()  # timm imports it
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **arguments)

    return build


def _hugging_face(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        load_torchvision()  # transformers imports it
        import transformers

        config = getattr(transformers, f"{name}Config")(
            vocab_size=TOKENS, num_labels=CLASSES, initializer_range=0.2, **arguments
        )
        return cast(nn.Module, getattr(transformers, f"{name}ForSequenceClassification")(config))

    return build


def _one(draw: Callable[[int], Tensor]) -> Inputs:
    return lambda count: (draw(count),)


def _clips(count: int) -> tuple[Tensor, ...]:
    return (torch.randn(count, 3, 4, 16, 16),)


def _padded(count: int) -> tuple[Tensor, ...]:
    return torch.randn(count, LENGTH, 5), 1 + torch.arange(count) % LENGTH


def _words_and_pictures(count: int) -> tuple[Tensor, ...]:
    return tokens(count), torch.randn(count, 3, 16, 16)


def _pixels(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float((outputs.argmax(1) == targets).mean())


def _main(outputs: Any) -> Tensor:
    """The output that the task chooses of several."""
    return choose(outputs, main_output(outputs) or 0)


def _task(name: str) -> Task:
    build, draw = _MODELS[name]
    dense = name in DENSE
    with seeded(0):
        model = build().eval()
        parts = [TensorDataset(*draw(count), _targets(count, dense)) for count in (TRAIN, SELECTION)]
        # Untrained statistics let the signal of a deep network die: every output would be nearly zero.
        reestimate_batch_norm(ChosenOutput(model, _main), [parts[0].tensors[:-1]])
    train, selection = (DataLoader(part, batch_size=16) for part in parts)
    metric = Metric("pixel_accuracy", "maximize", _pixels) if dense else "accuracy"
    return Task.from_loaders(model, train, selection, metric=metric, name=name)


def _targets(count: int, dense: bool) -> Tensor:
    classes = torch.arange(count) % CLASSES
    return classes[:, None, None].expand(-1, SIDE, SIDE).contiguous() if dense else classes


_IMAGES = _one(images(SIDE))
_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
_DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 32}

_MODELS: Mapping[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "vit_b_16 (small)": (
        lambda: load_torchvision().models.VisionTransformer(32, 16, 2, 12, 192, 384, num_classes=CLASSES),
        _IMAGES,
    ),
    "swin_t": (_torchvision("swin_t"), _IMAGES),
    "convnext_tiny": (_torchvision("convnext_tiny"), _IMAGES),
    "efficientnet_b0": (_torchvision("efficientnet_b0"), _IMAGES),
    "googlenet": (_torchvision("googlenet", init_weights=False), _IMAGES),
    "inception_v3": (  # its auxiliary head needs images of 299 pixels
        _torchvision("inception_v3", init_weights=False, aux_logits=False),
        _one(images(80)),
    ),
    "shufflenet_v2": (_torchvision("shufflenet_v2_x0_5"), _IMAGES),
    "regnet_y_400mf": (_torchvision("regnet_y_400mf"), _IMAGES),
    "squeezenet": (_torchvision("squeezenet1_1"), _IMAGES),
    "mnasnet": (_torchvision("mnasnet0_5"), _IMAGES),
    "r3d_18": (_torchvision("r3d_18", "video"), _clips),
    "lraspp": (_torchvision("lraspp_mobilenet_v3_large", "segmentation", weights_backbone=None), _IMAGES),
    "deeplabv3": (
        _torchvision("deeplabv3_mobilenet_v3_large", "segmentation", weights_backbone=None),
        _IMAGES,
    ),
    "unet": (UNet, _IMAGES),
    "timm_resnet18": (_timm("resnet18"), _IMAGES),
    "timm_deit_tiny": (_timm("deit_tiny_patch16_224", img_size=32), _IMAGES),
    "bert": (_hugging_face("Bert", **_BERT), _one(tokens)),
    "distilbert": (_hugging_face("DistilBert", **_DISTILBERT), _one(tokens)),
    "transformer_encoder": (lambda: Encoder(TOKENS, CLASSES), _one(tokens)),
    "tcn": (Tcn, _one(series(3, 48))),
    "wavenet": (WaveNet, _one(series(1, 64))),
    "gru_with_lengths": (lambda: WithLengths(nn.GRU), _padded),
    "lstm_with_lengths": (lambda: WithLengths(nn.LSTM), _padded),
    "two_towers": (TwoTowers, _words_and_pictures),
    "multi_task": (MultiTask, _IMAGES),
}

CASES: Mapping[str, Callable[[], Task]] = {name: functools.partial(_task, name) for name in _MODELS}
"""Name of a model to a function that makes its task; the same one each time."""
