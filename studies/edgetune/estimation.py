"""Print how far figures taken on random weights beside a training are from those of the trained file, idle.

    python -m studies.edgetune.estimation

Figure 15 of EDGETUNE. For each architecture the inference server tunes a file of random weights while this
process trains on its own cores. Afterwards, a file with other weights is measured in the recommended setting
by a fresh process while nothing else runs, several times minutes apart, and the fastest counts: other guests
of a machine make it slower for a while, and nothing makes it faster. The error is
|measured - expected| / measured; the paper's is at most 20 %. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections.abc import Iterator
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
from petra_optuna.measurement import SettingProcess
from petra_optuna.models import ResidualNet
from petra_optuna.nn.inputs import to_feeds
from studies import script
from studies.edgetune.architectures import every, exported

DEVICE = EdgeDevice("host", 1)


def main() -> None:
    """Print the table."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    names = every(given.architectures)
    cores = serving_cores(DEVICE, training_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        answers = _beside_a_training(names, cores, Path(folder), given)
        header = ("architecture", "setting", "expected, samples/s", "measured, samples/s", "error, %")
        measured = _measured(names, cores, answers, Path(folder), given.rounds)
        script.print_table(header, _rows(names, answers, measured))


def _beside_a_training(
    names: list[str], cores: tuple[int, ...], folder: Path, given: argparse.Namespace
) -> list[Recommendation]:
    path = folder / "estimation.db"
    pause = Pause()
    tuner = InferenceTuner(
        storage=open_storage(path),
        device=DEVICE,
        cores=cores,
        objective=inference_objective("throughput"),
        max_batch=given.max_batch,
    )
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, (here - set(cores)) or here)
    with InferenceServer(tuner, f"sqlite:///{path}", pause) as server:
        shapes = [server.ask(file, to_feeds((example,))) for _, file, example in exported(names, folder)]
        ended = threading.Event()

        def wait() -> None:
            try:
                _answers(server, shapes)
            finally:  # the training below would go on for ever
                ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        _train_until(ended, pause)
        waiting.join()
        return _answers(server, shapes)


def _answers(server: InferenceServer, shapes: list[str]) -> list[Recommendation]:
    return [server.answer(shape) for shape in shapes]


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


def _measured(
    names: list[str], cores: tuple[int, ...], answers: list[Recommendation], folder: Path, rounds: int
) -> list[float]:
    """Most samples a second of each architecture over some rounds."""
    files = list(exported(names, folder, seed=1))
    best = [0.0] * len(files)
    for _ in range(rounds):
        for index, ((_, file, example), answer) in enumerate(zip(files, answers, strict=True)):
            with SettingProcess(file, to_feeds((example,)), cores) as process:
                ratio = process.measure(answer.setting).call.ratio
                rate = answer.setting.batch * 1e3 / (ratio * process.anchor_ms())
            best[index] = max(best[index], rate)
    return best


def _rows(
    names: list[str], answers: list[Recommendation], measured: list[float]
) -> Iterator[tuple[object, ...]]:
    errors = []
    for name, answer, rate in zip(names, answers, measured, strict=True):
        expected = answer.expected["throughput_per_s"].value
        errors.append(abs(rate - expected) / rate)
        cells = (f"{expected:.0f}", f"{rate:.0f}", f"{100 * errors[-1]:.1f}")
        yield name, answer.setting.describe(), *cells
    quartiles = np.percentile(100 * np.array(errors), (25, 50, 75, 100))
    yield "quartiles and largest", "", "", "", ", ".join(f"{value:.1f}" for value in quartiles)


def _arguments() -> argparse.Namespace:
    parser = script.parser(__doc__)
    parser.add_argument("--architectures", type=int, default=20, help="number of architectures")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each file afterwards")
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch of the searches")
    return parser.parse_args()


if __name__ == "__main__":
    script.run(main)
