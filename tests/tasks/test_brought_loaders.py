"""Loaders of ten kinds, each through training, pruning, INT8 and export: what is reported is what the file does.

The file is judged by ONNX Runtime, NumPy and scikit-learn alone, on what the selection loader itself gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.metrics import accuracy_score, f1_score, root_mean_squared_error
from support.fast_measurement import BySize
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

from petra_optuna.evaluation import Budget, Evaluator
from petra_optuna.measurement import Baseline, ShapeMeasurer
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import Prune, QuantizeStatic, Train
from petra_optuna.pipeline import Pipeline, Recipe
from petra_optuna.tasks import Metric, Task

Score = Callable[[np.ndarray, np.ndarray], float]
TOKENS = 20


@dataclasses.dataclass(frozen=True)
class Brought:
    """What a person brings.

    Attributes:
        model: Makes the untrained network.
        data: Arguments of two loaders: a data set each, and how samples are joined.
        metric: The task's metric.
        score: The same, from outputs and targets of all samples.
        least: Quality that the pipeline must reach, or must not exceed where less is better.
        more: Further arguments of ``Task.from_loaders``.
        split: Feeds by input name, and the target, of one batch of the loader.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], tuple[Dataset[Any], Dataset[Any]]]
    metric: str | Metric
    score: Score
    least: float
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    collate: Callable[[list[Any]], Any] | None = None
    split: Callable[[Any], tuple[Mapping[str, Tensor], Tensor]] = lambda batch: (
        {"input": batch[0]},
        batch[1],
    )


def _parts(inputs: Sequence[Tensor], targets: Tensor) -> tuple[TensorDataset, TensorDataset]:
    """Three quarters to train on, the rest to select on, in a drawn order."""
    order = torch.randperm(len(targets))
    cut = 3 * len(order) // 4
    rows = (order[:cut], order[cut:])
    train, selection = (TensorDataset(*(tensor[part] for tensor in inputs), targets[part]) for part in rows)
    return train, selection


def _digits() -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    return torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None], torch.tensor(bunch.target)


def _table(bunch: Any) -> Tensor:
    values = (bunch.data - bunch.data.mean(0)) / bunch.data.std(0)
    return torch.tensor(values, dtype=torch.float32)


def _cancer() -> tuple[TensorDataset, TensorDataset]:
    bunch = load_breast_cancer()
    return _parts([_table(bunch)], torch.tensor(bunch.target))


def _diabetes() -> tuple[TensorDataset, TensorDataset]:
    bunch = load_diabetes()
    return _parts([_table(bunch)], torch.tensor(bunch.target / 100, dtype=torch.float32))


def _rare() -> tuple[TensorDataset, TensorDataset]:
    """One sample in ten is of the rare class."""
    targets = (torch.rand(600) < 0.1).long()
    return _parts([torch.randn(600, 12) + 1.5 * targets[:, None]], targets)


def _series() -> tuple[TensorDataset, TensorDataset]:
    targets = torch.arange(400) % 3
    steps = torch.linspace(0, 6.28, 48) * (1 + targets[:, None, None]) + torch.rand(400, 2, 1)
    return _parts([torch.sin(steps) + 0.3 * torch.randn(400, 2, 48)], targets)


def _labels() -> tuple[TensorDataset, TensorDataset]:
    """A digit's labels: even, below five, divisible by three."""
    images, digits = _digits()
    marks = torch.stack([digits % 2 == 0, digits < 5, digits % 3 == 0], dim=1)
    return _parts([images], marks.float())


def _segments() -> tuple[TensorDataset, TensorDataset]:
    """Each pixel's class: background, or ink of an odd or an even digit."""
    images, digits = _digits()
    ink = (images[:, 0] > 0.3).long() * (1 + digits % 2)[:, None, None]
    return _parts([images], ink)


def _pairs() -> tuple[TensorDataset, TensorDataset]:
    images, digits = _digits()
    hints = (digits[:, None] % 2 + 0.1 * torch.randn(len(digits), 1)).float()
    return _parts([images, hints], digits)


class Words(Dataset[tuple[Tensor, Tensor]]):
    """Sentences of 3 to 14 words; the class is whether words below ten prevail."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.samples = []
        for _ in range(count):
            length = int(torch.randint(3, 15, (), generator=generator))
            words = torch.randint(1, TOKENS, (length,), generator=generator)
            self.samples.append((words, ((words < 10).float().mean() > 0.5).long()))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.samples[index]


class Named(Dataset[dict[str, Tensor]]):
    """A data set whose samples are dicts."""

    def __init__(self, samples: TensorDataset) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, digit = self.samples[index]
        return {"pixels": image, "label": digit}


def _padded(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    words, targets = zip(*samples, strict=True)
    return pad_sequence(list(words), batch_first=True), torch.stack(targets)


class TextNet(nn.Module):
    """The mean of the embeddings of the words that are not padding, through two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 16)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, words: Tensor) -> Tensor:
        mask = (words > 0).float()[..., None]
        return self.head((self.embedding(words) * mask).sum(1) / mask.sum(1))  # type: ignore[no-any-return]


class PixelNet(nn.Module):
    """A digit's picture to ten logits, its argument named as in the batch."""

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        )
        self.head = nn.Linear(24 * 16, outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(pixels).flatten(1))  # type: ignore[no-any-return]


class TwoInputs(nn.Module):
    """A picture and a hint."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = PixelNet(32)
        self.hint = nn.Linear(1, 16)
        self.head = nn.Linear(48, 10)

    def forward(self, pixels: Tensor, hint: Tensor) -> Tensor:
        joined = torch.cat([self.pixels(pixels), self.hint(hint)], dim=1)
        return self.head(joined.relu())  # type: ignore[no-any-return]


def _mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, outputs)
    )


def _conv1d() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(2, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU()),
        *(nn.Conv1d(16, 24, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        nn.Linear(24, 3),
    )


def _dense() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 3, 1)),
    )


def _accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(accuracy_score(targets, outputs.argmax(1)))


def _pixel_accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float((outputs.argmax(1) == targets).mean())


def _label_f1(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(f1_score(targets, outputs > 0, average="macro", zero_division=0))


def _macro_f1(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(f1_score(targets, outputs.argmax(1), average="macro", zero_division=0))


def _rmse(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(root_mean_squared_error(targets, outputs.reshape(-1)))


KINDS = {
    "image": Brought(PixelNet, lambda: _parts(*_as_list(_digits())), "accuracy", _accuracy, 0.85),
    "table": Brought(lambda: _mlp(30, 2), _cancer, "accuracy", _accuracy, 0.9),
    "text of many lengths": Brought(
        TextNet,
        lambda: (Words(600, 1), Words(200, 2)),
        "accuracy",
        _accuracy,
        0.7,
        more={"dynamic": {"input": {1: "time"}}},
        collate=_padded,
    ),
    "series": Brought(_conv1d, _series, "accuracy", _accuracy, 0.7),
    "multi-label": Brought(
        lambda: PixelNet(3),
        _labels,
        Metric("label_f1", "maximize", _label_f1),
        _label_f1,
        0.8,
        more={"loss": nn.BCEWithLogitsLoss()},
    ),
    "segmentation": Brought(
        _dense, _segments, Metric("pixel_accuracy", "maximize", _pixel_accuracy), _pixel_accuracy, 0.6
    ),
    "two inputs": Brought(
        TwoInputs,
        _pairs,
        "accuracy",
        _accuracy,
        0.85,
        split=lambda batch: ({"input_0": batch[0], "input_1": batch[1]}, batch[2]),
    ),
    "dict": Brought(
        PixelNet,
        lambda: tuple(map(Named, _parts(*_as_list(_digits())))),  # type: ignore[arg-type,return-value]
        "accuracy",
        _accuracy,
        0.85,
        split=lambda batch: ({"pixels": batch["pixels"]}, batch["label"]),
    ),
    "regression": Brought(lambda: _mlp(10, 1), _diabetes, "rmse", _rmse, 0.75),
    "imbalanced": Brought(
        lambda: _mlp(12, 2),
        _rare,
        "macro_f1",
        _macro_f1,
        0.7,
        more={"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))},
    ),
}


def _as_list(pair: tuple[Tensor, Tensor]) -> tuple[list[Tensor], Tensor]:
    return [pair[0]], pair[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_reported_of_a_task_is_what_its_file_does(kind: str, tmp_path: Path) -> None:
    brought = KINDS[kind]
    with seeded(0):
        model = brought.model()
        train, selection = brought.data()
    loaders = [DataLoader(part, batch_size=32, collate_fn=brought.collate) for part in (train, selection)]
    _fit(model, loaders[0], brought)
    task = Task.from_loaders(model, *loaders, metric=brought.metric, name="brought", **brought.more)
    measurer = ShapeMeasurer(BySize(), Baseline(10.0, {16: 900.0, 64: 1000.0}))
    nodes = (Train(epochs=2), Prune(removed=0.3, scope="local"), Train(epochs=4), QuantizeStatic())
    evaluator = Evaluator(task, measurer, tmp_path, budget=Budget(epochs=6), seed=1)
    evaluation = evaluator.evaluate(Pipeline(nodes, Recipe(batch_size=32, lr=3e-3)))

    by_hand = brought.score(*_outputs(evaluation.artifact.path, loaders[1], brought))
    assert evaluation.values[task.metric.name] == pytest.approx(by_hand, abs=1e-6)
    assert by_hand <= brought.least if task.metric.direction == "minimize" else by_hand >= brought.least
    assert evaluation.values["parameters"] < 0.9 * count_parameters(model)
    assert "int8" in evaluation.artifact.lowering["precision"]


def _fit(model: nn.Module, loader: DataLoader[Any], brought: Brought) -> None:
    """Train the original a little, as its owner would."""
    loss = brought.more.get("loss") or (
        functional.mse_loss if brought.metric == "rmse" else functional.cross_entropy
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with seeded(0):
        for _ in range(3):
            for batch in loader:
                inputs, targets = brought.split(batch)
                outputs = model(*inputs.values())
                optimizer.zero_grad()
                loss(
                    outputs.reshape(targets.shape) if brought.metric == "rmse" else outputs, targets
                ).backward()
                optimizer.step()


def _outputs(path: Path, loader: DataLoader[Any], brought: Brought) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs, targets = [], []
    for batch in loader:
        inputs, target = brought.split(batch)
        outputs.append(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])
        targets.append(target.numpy())
    return np.concatenate(outputs), np.concatenate(targets)
