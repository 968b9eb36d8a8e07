"""Print what two small transformers keep of their accuracy when half of their heads leave, by criterion.

    python -m studies.heads

A vision transformer of torchvision is trained on the digits, in patches of 2x2. torch's encoder is trained
on texts made up here: the class of a text is the token behind its marker, which some heads have to find. Of
each attention layer half of the heads leave, nothing else; then all models have the same short training.
Accuracies on the test split are in percent, each with the half width of its 95 % interval over the seeds
(Student's t); the seeds are those of the base, of the criterion and of the training. The factors are those of
latency at batch 1 and of throughput at the largest batch against the original, of one file: all files of a
model have the same shape.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import lower
from petra_optuna.measurement import DeviceProfile, MeasuringProcess
from petra_optuna.nn.inputs import forward, to_feeds
from petra_optuna.nn.pruning import CRITERIA, Criterion, group_widths, magnitude_scores, prune_group
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import Context, Train
from petra_optuna.operations.scoring import score_weights
from petra_optuna.pipeline import Recipe
from petra_optuna.tasks import Task, open_once
from petra_optuna.tasks.torchvision_shim import load_torchvision
from studies import script

WIDTH, HEADS, LAYERS = 64, 8, 2
MARKER, VALUES, TOKENS, LENGTH = 0, 8, 24, 12
TRAIN, SELECTION, TEST = 3000, 500, 1000
EPOCHS = 10
BASE = Recipe(lr=3e-3, batch_size=32, distillation_weight=0.0)
AFTERWARDS = Recipe(lr=5e-4, batch_size=64, distillation_weight=0.5)
SCORED: tuple[Criterion, ...] = tuple(name for name in CRITERIA if name != "batch_norm")
"""All criteria but that of batch norms, of which a transformer has none."""


class Pictures(nn.Module):
    """torchvision's vision transformer for images (B, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = load_torchvision().models.VisionTransformer(
            image_size=8,
            patch_size=2,
            num_layers=LAYERS,
            num_heads=HEADS,
            hidden_dim=WIDTH,
            mlp_dim=2 * WIDTH,
            num_classes=10,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 8, 8) to logits (B, 10)."""
        logits: Tensor = self.transformer(images.expand(-1, 3, -1, -1))
        return logits


class Texts(nn.Module):
    """torch's encoder for texts (B, LENGTH) of numbered tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VALUES)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (B, LENGTH) to logits (B, VALUES)."""
        logits: Tensor = self.head(self.encoder(self.tokens(numbers) + self.places).mean(1))
        return logits


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a model with half of its heads has kept.

    Attributes:
        model: The model after its short training.
        before: Accuracy on test before it.
        after: Accuracy on test after it.
    """

    model: nn.Module
    before: float
    after: float


def main() -> None:
    """Print one row for each model and criterion."""
    parser = script.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of training without the heads")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS), metavar="MODEL")
    arguments = parser.parse_args()
    header = (
        *("model", "criterion", "at once", "±", "after training", "±", "less random heads", "±"),
        *("original", "latency, times", "throughput, times"),
    )
    script.print_table(header, _rows(arguments))


def _rows(arguments: argparse.Namespace) -> Iterator[list[object]]:
    for name in arguments.only:
        tasks = [TASKS[name](seed) for seed in range(arguments.seeds)]
        originals = [_accuracy(task.model, task) for task in tasks]
        kept = {
            criterion: [
                _without_heads(task, criterion, seed, arguments.epochs) for seed, task in enumerate(tasks)
            ]
            for criterion in SCORED
        }
        faster = _factors(tasks[0], kept["random"][0].model)
        random = np.array([one.after for one in kept["random"]])
        for criterion, models in kept.items():
            after = np.array([one.after for one in models])
            columns = (np.array([one.before for one in models]), after, after - random)
            cells = [cell for column in columns for cell in script.interval(column.tolist())]
            yield [name, criterion, *cells, f"{100 * np.mean(originals):.1f}", *faster]


def digits(seed: int) -> Task:
    """The digits without augmentation; every fifth is test, the one behind it selection."""
    data = load_digits()
    images, targets = (
        torch.from_numpy(data.images).float()[:, None] / 16,
        torch.from_numpy(data.target).long(),
    )
    fifth = torch.arange(len(targets)) % 5
    parts = [(images[mask], targets[mask]) for mask in (fifth > 1, fifth == 1, fifth == 0)]
    return _trained(Pictures, parts, seed, rounds=3)


def texts(seed: int) -> Task:
    """Texts of which each has one marker."""
    with seeded(seed):
        parts = [_draw(count) for count in (TRAIN, SELECTION, TEST)]
    return _trained(Texts, parts, seed, rounds=1)


TASKS: dict[str, Callable[[int], Task]] = {"vision transformer, digits": digits, "encoder, texts": texts}


def _draw(count: int) -> tuple[Tensor, Tensor]:
    """Texts (count, LENGTH) and their classes (count,)."""
    numbers = torch.randint(1, TOKENS, (count, LENGTH))
    places = torch.randint(LENGTH - 1, (count,))
    classes = torch.randint(VALUES, (count,))
    rows = torch.arange(count)
    numbers[rows, places], numbers[rows, places + 1] = MARKER, classes + 1
    return numbers, classes


def _trained(
    build: Callable[[], nn.Module], parts: Sequence[tuple[Tensor, Tensor]], seed: int, rounds: int
) -> Task:
    """A task of train, selection and test, with a model that was trained for ten epochs, so many times."""
    train, selection, test = (DataLoader(TensorDataset(*part), batch_size=64) for part in parts)
    with seeded(seed):
        task = Task.from_loaders(build(), train, selection, test, metric="accuracy", name=build.__name__)
    model, context = task.model, Context(task=task, recipe=BASE, seed=seed, epochs=EPOCHS)
    for _ in range(rounds):
        model = Train(epochs=EPOCHS).apply(model, context).model
    return dataclasses.replace(task, model=model, fingerprint="")


def _without_heads(task: Task, criterion: Criterion, seed: int, epochs: int) -> Kept:
    context = Context(task=task, recipe=AFTERWARDS, seed=seed, epochs=epochs)
    model = task.model.requires_grad_()
    for name in group_widths(model, task.example, magnitude_scores(model, power=1)):
        if name.endswith(" heads"):
            scores = score_weights(model, criterion, context).scores
            model, _ = prune_group(model, task.example, scores, name, 0.5)
    trained = Train(epochs=epochs).apply(model, context).model
    return Kept(trained, _accuracy(model, task), _accuracy(trained, task))


def _accuracy(model: nn.Module, task: Task) -> float:
    assert task.test is not None
    with torch.no_grad():
        return task.evaluate(lambda inputs: forward(model, inputs).numpy(), open_once(task.test))


def _factors(task: Task, model: nn.Module) -> tuple[str, str]:
    """How many times as fast as the original the model is, by latency and by throughput."""
    with tempfile.TemporaryDirectory() as folder:
        original, path = Path(folder, "original.onnx"), Path(folder, "model.onnx")
        lower(task.model, task.example, original)
        lower(model, task.example, path)
        with MeasuringProcess(DeviceProfile(), original, to_feeds(task.example)) as process:
            measured = script.by_batch(process.measure(path))
    return f"{1 / measured[0].ratio:.2f}", f"{1 / measured[-1].ratio:.2f}"


if __name__ == "__main__":
    script.run(main)
