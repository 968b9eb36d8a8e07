"""Print what the model's parameter, batch size and cores do to the serving of a workload's networks.

    python -m studies.edgetune.settings ic --data-root data/cifar10

Figures 2, 3 and 5 of EDGETUNE. Each network has random weights; it is measured at every batch size on every
number of cores, one thread a core, in ONNX Runtime. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from petra_optuna.deploy import lower
from petra_optuna.edgetune import Workload
from petra_optuna.inference import EdgeDevice, serving_cores
from petra_optuna.inference.objective import figures
from petra_optuna.measurement import InferenceSetting, SettingProcess, available_cores
from petra_optuna.nn.counting import count_macs, count_parameters
from petra_optuna.nn.inputs import take, to_feeds
from petra_optuna.noise import Reading
from petra_optuna.samplers import grid_points
from studies import script


def main() -> None:
    """Print the table."""
    given = _arguments()
    workload = script.given_workload(given)
    header = ("network", "parameters", "MACs a sample", "cores", "batch", "latency, ms", "samples/s")
    script.print_table(header, _rows(workload, given))


def _rows(workload: Workload, given: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    ((name, distribution),) = workload.model_space.items()
    cores = serving_cores(EdgeDevice("host", available_cores()))
    example = workload.task.example
    for value in grid_points(distribution):
        network = workload.network({name: value}, seed=0).eval()
        counts = (count_parameters(network), count_macs(network, take(example, 1)))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            lower(network, example, file, dynamic=workload.task.dynamic, others=workload.task.other_examples)
            with SettingProcess(file, to_feeds(example), cores) as process:
                anchor = Reading(process.anchor_ms())
                for used in range(1, len(cores) + 1):
                    for batch in given.batches:
                        measured = process.measure(InferenceSetting(batch, used, used))
                        values = figures(measured, anchor)
                        yield (
                            *(f"{name} {value}", *counts, used, batch),
                            f"{values['latency_ms'].value:.2f}",
                            f"{values['throughput_per_s'].value:.1f}",
                        )


def _arguments() -> argparse.Namespace:
    parser = script.workload_parser(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10, 100], help="batch sizes")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
