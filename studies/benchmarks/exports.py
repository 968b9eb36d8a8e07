"""Print how many seconds a first export takes, and a later one of other weights in the same structure.

    python -m studies.benchmarks.exports

Networks with random weights, on one thread. The second export goes through the template of the first, and its
file is compared with that of an export of its own. One export before the first row is not counted: it loads
the exporter.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from petra_optuna.deploy import export_onnx
from petra_optuna.deploy.export import capture, fill
from petra_optuna.models import InceptionTime
from petra_optuna.nn.inputs import Inputs
from petra_optuna.nn.randomness import seeded
from petra_optuna.tasks.torchvision_shim import load_torchvision
from studies import script

HEADER = (
    *("network", "parameters, M", "first export, s", "later export, s"),
    *("template, kB", "same file as a new export"),
)


class Encoder(nn.Module):
    """A GRU over series (B, T, 12), read at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(12, 256, num_layers=2, batch_first=True), nn.Linear(256, 4)

    def forward(self, steps: Tensor) -> Tensor:
        """Map (B, T, 12) to scores (B, 4)."""
        scores: Tensor = self.head(self.gru(steps)[0][:, -1])
        return scores


def main() -> None:
    """Print the table."""
    script.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    export_onnx(nn.Linear(2, 2), (torch.zeros(2, 2),))
    script.print_table(HEADER, rows(networks()))


def networks() -> Mapping[str, tuple[nn.Module, Inputs]]:
    """Networks with an example each, by name."""
    vision, images = load_torchvision().models, (torch.randn(8, 3, 32, 32),)
    with seeded(0):
        return {
            "ResNet-18": (vision.resnet18(num_classes=10), images),
            "MobileNetV3, small": (vision.mobilenet_v3_small(num_classes=10), images),
            "vision transformer, 4 layers": (
                vision.VisionTransformer(
                    image_size=32, patch_size=4, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=256
                ),
                images,
            ),
            "InceptionTime": (InceptionTime(3, 4), (torch.randn(8, 3, 96),)),
            "GRU, 2 layers": (Encoder(), (torch.randn(8, 24, 12),)),
        }


def rows(models: Mapping[str, tuple[nn.Module, Inputs]]) -> Iterator[list[object]]:
    """One row a network under ``HEADER``."""
    for name, (network, inputs) in models.items():
        first, other = network.eval(), _other_weights(network)
        millions = sum(parameter.numel() for parameter in first.parameters()) / 1e6
        traced = script.seconds_of(functools.partial(export_onnx, first, inputs))
        template = capture(first, inputs)
        filled = script.seconds_of(functools.partial(fill, template, other))
        same = fill(template, other) == export_onnx(other, inputs)
        size = f"{len(template.graph) / 1e3:.0f}"
        yield [name, f"{millions:.2f}", f"{traced:.2f}", f"{filled:.2f}", size, "yes" if same else "no"]


def _other_weights(network: nn.Module) -> nn.Module:
    other = copy.deepcopy(network).eval()
    with seeded(1), torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
    return other


if __name__ == "__main__":
    script.run(main)
