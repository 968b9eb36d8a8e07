"""How long operations take, and what they do for a recurrent encoder.

    python -m studies.benchmarks.operations

Seconds of each structural operation and of static quantisation on torchvision's ResNet-18 (11.2 M
parameters, 32x32 images, random weights), beside one training step of batch 64 in the same run. Then a
GRU encoder of 800 units, pruned to half and weight-quantised, against the original in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from petra_optuna.deploy import lower
from petra_optuna.measurement import DeviceProfile, MeasuringProcess
from petra_optuna.nn.inputs import to_feeds
from petra_optuna.nn.randomness import seeded
from petra_optuna.operations import (
    Context,
    DropBlocks,
    LowRank,
    Prune,
    QuantizeDynamic,
    QuantizeStatic,
    Train,
)
from petra_optuna.pipeline import Operation, Recipe
from petra_optuna.tasks import Task
from petra_optuna.tasks.torchvision_shim import load_torchvision
from studies import script

HIDDEN, EVENTS, CODES, WIDTH = 800, 100, 250, 32
SAMPLES = 256


class Encoder(nn.Module):
    """Codes of events, embedded, through a GRU; the last state is the embedding of the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, WIDTH)
        self.gru = nn.GRU(WIDTH, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, T) to scores (B, 2)."""
        outputs, _ = self.gru(self.embedding(codes))
        scores: Tensor = self.head(outputs[:, -1])
        return scores


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with seeded(0):
        images = torch.rand(SAMPLES, 3, 32, 32)
        resnet = _task(load_torchvision().models.resnet18(num_classes=10), images, torch.arange(SAMPLES) % 10)
        codes = torch.randint(CODES, (SAMPLES, EVENTS))
        encoder = _task(Encoder(), codes, torch.arange(SAMPLES) % 2)
    _times(resnet)
    print()
    _recurrent(encoder)


def _times(task: Task) -> None:
    context = Context(task=task, recipe=Recipe(batch_size=64, distillation_weight=0.0), seed=0, epochs=1)
    steps = SAMPLES // 64
    step_s = _seconds(lambda: Train(epochs=1).apply(task.model, context)) / steps
    print(f"| ResNet-18 | seconds | training steps of batch 64 ({step_s:.2f} s each) |\n|---|---|---|")
    nodes: dict[str, Operation] = {
        **{f"Prune, {name}": Prune(criterion=name) for name in ("magnitude_l2", "lamp", "taylor", "hessian")},
        "DropBlocks, taylor": DropBlocks(),
        **{f"LowRank, {rule}": LowRank(rule=rule) for rule in ("energy", "singular_values", "share")},
    }
    for name, node in nodes.items():
        seconds = _seconds(lambda node=node: node.apply(task.model, context))  # type: ignore[misc]
        print(f"| {name} | {seconds:.2f} | {seconds / step_s:.1f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        for name, conversion in {"export": None, "export and static INT8": QuantizeStatic()}.items():
            seconds = _seconds(lambda c=conversion: lower(task.model, task.example, path, c, context))  # type: ignore[misc]
            print(f"| {name} | {seconds:.2f} | {seconds / step_s:.1f} |", flush=True)


def _recurrent(task: Task) -> None:
    context = Context(task=task, recipe=Recipe(), seed=0, epochs=0)
    pruned = Prune(removed=0.5).apply(task.model, context).model
    files: dict[str, tuple[nn.Module, Operation | None]] = {
        "original": (task.model, None),
        "weights in INT8": (task.model, QuantizeDynamic()),
        "half the units": (pruned, None),
        "half the units, weights in INT8": (pruned, QuantizeDynamic()),
    }
    print(
        f"| GRU of {HIDDEN} units, {EVENTS} events | MB | smaller | faster at batch 1 | at batch 64 |\n"
        "|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        baseline = Path(folder, "original.onnx")
        whole = lower(task.model, task.example, baseline).size_bytes
        with MeasuringProcess(DeviceProfile(), baseline, to_feeds(task.example)) as process:
            for name, (model, conversion) in files.items():
                path = Path(folder, "model.onnx")
                size = lower(model, task.example, path, conversion, context).size_bytes
                measured = process.measure(path)
                fast = " | ".join(f"{1 / one.ratio:.2f}x" for one in (measured.latency, *measured.throughput))
                print(f"| {name} | {size / 1e6:.2f} | {whole / size:.2f}x | {fast} |", flush=True)


def _task(model: nn.Module, inputs: Tensor, targets: Tensor) -> Task:
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64)
    return Task.from_loaders(model, loader, loader, metric="accuracy")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    script.run(main)
