"""Print how many seconds operations take, and how small and fast they make a recurrent encoder.

    python -m studies.benchmarks.operations

Seconds of each structural operation and of static quantisation on torchvision's ResNet-18 (11.2 M
parameters, 32x32 images, random weights), beside one training step of batch 64 in the same run. Then a
GRU encoder of 800 units, pruned to half and in dynamic INT8, against the original in ONNX Runtime.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

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
FASTER = ("times as fast at batch 1", "times as fast at batch 64")


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
    parser = script.parser(__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with seeded(0):
        images = torch.rand(SAMPLES, 3, 32, 32)
        network, numbers = load_torchvision().models.resnet18(num_classes=10), torch.arange(SAMPLES)
        resnet = script.synthetic_task(network, images, numbers % 10)
        codes = torch.randint(CODES, (SAMPLES, EVENTS))
        encoder = script.synthetic_task(Encoder(), codes, numbers % 2)
    context = Context(task=resnet, recipe=Recipe(batch_size=64, distillation_weight=0.0), seed=0, epochs=1)
    steps = SAMPLES // 64
    step_s = script.seconds_of(lambda: Train(epochs=1).apply(resnet.model, context)) / steps
    header = ("ResNet-18", "seconds", f"training steps of batch 64 ({step_s:.2f} s each)")
    script.print_table(header, _times(resnet, context, step_s))
    print()
    encoder_header = (f"GRU of {HIDDEN} units, {EVENTS} events", "MB", "times smaller", *FASTER)
    script.print_table(encoder_header, _recurrent(encoder))


def _times(task: Task, context: Context, step_s: float) -> Iterator[list[object]]:
    """Seconds of each operation on the task's model, and training steps that take as long."""
    nodes: dict[str, Operation] = {
        **{f"Prune, {name}": Prune(criterion=name) for name in ("magnitude_l2", "lamp", "taylor", "hessian")},
        "DropBlocks, taylor": DropBlocks(),
        **{f"LowRank, {rule}": LowRank(rule=rule) for rule in ("energy", "singular_values", "share")},
    }
    for name, node in nodes.items():
        seconds = script.seconds_of(functools.partial(node.apply, task.model, context))
        yield [name, f"{seconds:.2f}", f"{seconds / step_s:.1f}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        for name, conversion in {"export": None, "export and static INT8": QuantizeStatic()}.items():
            work = functools.partial(lower, task.model, task.example, path, conversion, context)
            seconds = script.seconds_of(work)
            yield [name, f"{seconds:.2f}", f"{seconds / step_s:.1f}"]


def _recurrent(task: Task) -> Iterator[list[object]]:
    """Size and speed of each file of the encoder against the original's."""
    context = Context(task=task, recipe=Recipe(), seed=0, epochs=0)
    pruned = Prune(removed=0.5).apply(task.model, context).model
    files: dict[str, tuple[nn.Module, Operation | None]] = {
        "original": (task.model, None),
        "dynamic INT8": (task.model, QuantizeDynamic()),
        "half the units": (pruned, None),
        "half the units, dynamic INT8": (pruned, QuantizeDynamic()),
    }
    with tempfile.TemporaryDirectory() as folder:
        baseline = Path(folder, "original.onnx")
        whole = lower(task.model, task.example, baseline).size_bytes
        with MeasuringProcess(DeviceProfile(), baseline, to_feeds(task.example)) as process:
            for name, (model, conversion) in files.items():
                path = Path(folder, "model.onnx")
                size = lower(model, task.example, path, conversion, context).size_bytes
                faster = (f"{1 / one.ratio:.2f}" for one in script.by_batch(process.measure(path)))
                yield [name, f"{size / 1e6:.2f}", f"{whole / size:.2f}", *faster]


if __name__ == "__main__":
    script.run(main)
