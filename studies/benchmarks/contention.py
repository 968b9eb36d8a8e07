"""Print how many training steps a second a training makes alone, and beside a copy of itself.

    python -m studies.benchmarks.contention --task digits

Plain training steps of the task's model in processes of their own, in float32 and under bfloat16 autocast, on
one thread and on all of the machine's, with OpenMP's threads waiting as by default and asleep, which is what
``petra`` sets. ``beside a copy`` is the slower of two at once: where cores are shared and nothing is lost it
takes twice as long with all threads, and no longer where each has a core to itself.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from petra_optuna.errors import StudyError
from petra_optuna.nn.inputs import forward
from petra_optuna.tasks import Task
from studies import script

BATCH = 64
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
WAITING = "OMP_WAIT_POLICY"
POLICIES = {"default": {}, "asleep": {WAITING: "PASSIVE"}}


def main() -> None:
    """Print one row for each way to train; in a child the steps a second of one training."""
    parser = script.task_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of each timing")
    parser.add_argument("--only", choices=DTYPES, help="time one training, in this process")
    parser.add_argument("--threads", type=int, default=1, help="threads of that one training")
    given = parser.parse_args()
    if given.only:
        print(speed(script.given_task(given), given.only, given.threads, given.seconds))
        return
    header = (f"{given.task}, in", "threads", "waiting", "steps/s alone", "beside a copy", "times slower")
    script.print_table(header, _rows(given))


def _rows(given: argparse.Namespace) -> Iterator[list[object]]:
    for precision in DTYPES:
        for threads in sorted({1, os.cpu_count() or 1}):
            for policy in POLICIES:
                (alone,), both = (_together(count, precision, threads, policy, given) for count in (1, 2))
                slowest = min(both)
                speeds = (f"{alone:.2f}", f"{slowest:.2f}", f"{alone / slowest:.1f}")
                yield [precision, threads, policy, *speeds]


def speed(task: Task, precision: str, threads: int, seconds: float) -> float:
    """Steps a second of plain training over ``seconds``, after three steps to warm up."""
    torch.set_num_threads(threads)
    model = copy.deepcopy(task.model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    inputs, targets = next(iter(task.train.batches(BATCH, shuffle_seed=0)))
    dtype = DTYPES[precision]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            outputs = forward(model, inputs)
        task.loss(outputs.float(), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(3):
        step()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - began)


def _together(
    count: int, precision: str, threads: int, policy: str, given: argparse.Namespace
) -> list[float]:
    command = [sys.executable, "-m", "studies.benchmarks.contention", "--task", given.task]
    for name in ("data_root", "checkpoint"):
        if (value := getattr(given, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--seconds", str(given.seconds), "--only", precision, "--threads", str(threads)]
    inherited = {name: value for name, value in os.environ.items() if name != WAITING}
    environment = {**inherited, **POLICIES[policy]}
    children = [  # in sessions of their own: a scheduler that shares by session gives each its part
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(count)
    ]
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise StudyError("a training of this benchmark ended without a result; its error stands above")
    return [float(output) for output in outputs]


if __name__ == "__main__":
    script.run(main)
