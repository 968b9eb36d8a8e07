"""Print how far figures taken on random weights beside a training are from those of the trained file, idle.

    python -m studies.edgetune.estimation

Figure 15 of EDGETUNE. For each architecture the inference server tunes a file of random weights while this
process trains on its own cores. Once it has answered, the training ends, and a file with other weights is
measured in the recommended setting by fresh processes while nothing else runs. The fastest counts, as it does
in the search: other guests of a machine make it slower, and nothing makes it faster. Both measurements are
seconds apart, since such guests halve the speed for minutes. The error is |measured - expected| / measured;
the paper's is at most 20 %. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import optuna
import torch
from torch import nn

from petra_optuna.database import open_storage
from petra_optuna.inference import (
    EdgeDevice,
    InferenceServer,
    InferenceTuner,
    Pause,
    Recommendation,
    inference_objective,
    serving_cores,
)
from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import to_feeds
from studies import script
from studies.edgetune.architectures import every, exported
from studies.edgetune.served import served

DEVICE = EdgeDevice("host", 1)


def main() -> None:
    """Print the table."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    header = ("architecture", "setting", "expected, samples/s", "measured, samples/s", "error, %")
    with tempfile.TemporaryDirectory() as folder:
        script.print_table(header, _rows(every(given.architectures), Path(folder), given))


def _rows(names: list[str], folder: Path, given: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    path = folder / "estimation.db"
    pause = Pause()
    tuner = InferenceTuner(
        storage=open_storage(path),
        device=DEVICE,
        cores=serving_cores(DEVICE, training_threads=1),
        objective=inference_objective("throughput"),
        max_batch=given.max_batch,
    )
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, (here - set(tuner.cores)) or here)
    errors = []
    pairs = zip(exported(names, folder), exported(names, folder, seed=1), strict=True)
    with InferenceServer(tuner, f"sqlite:///{path}", pause) as server:
        for (name, file, example), (_, trained, _) in pairs:
            feeds = to_feeds((example,))
            answer = _beside_a_training(server, server.ask(file, feeds), pause)
            expected = answer.expected["throughput_per_s"].value
            rates = [
                served(trained, feeds, answer.setting, tuner.cores)["throughput_per_s"].value
                for _ in range(given.rounds)
            ]
            rate = max(rates)
            errors.append(abs(rate - expected) / rate)
            cells = (f"{expected:.0f}", f"{rate:.0f}", f"{100 * errors[-1]:.1f}")
            yield name, answer.setting.describe(), *cells
    quartiles = np.percentile(100 * np.array(errors), (25, 50, 75, 100))
    yield "quartiles and largest", "", "", "", ", ".join(f"{value:.1f}" for value in quartiles)


def _beside_a_training(server: InferenceServer, shape: str, pause: Pause) -> Recommendation:
    """The answer for a shape, for which this process trains until it is there."""
    ended = threading.Event()

    def wait() -> Recommendation:
        try:
            return server.answer(shape)
        finally:  # the training below would go on for ever
            ended.set()

    with ThreadPoolExecutor(1) as waiting:
        answer = waiting.submit(wait)
        _train_until(ended, pause)
        return answer.result()


def _train_until(ended: threading.Event, pause: Pause) -> None:
    """Train a network on noise, step after step."""
    network = ResidualNet(3, 10, (16, 32), 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    with pause.working():
        while not ended.is_set():
            loss = nn.functional.cross_entropy(
                network(torch.randn(64, 3, 32, 32)), torch.randint(0, 10, (64,))
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            pause.step()


def _arguments() -> argparse.Namespace:
    parser = script.parser(__doc__)
    parser.add_argument("--architectures", type=int, default=20, help="number of architectures")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each file afterwards")
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch of the searches")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
