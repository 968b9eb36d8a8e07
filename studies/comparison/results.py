"""Finished runs in a file, one JSON object a line, shared by any number of processes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from petra_optuna.errors import UserError
from studies.comparison.problems import Problem, build_problem
from studies.comparison.runs import Run, execute

FILE = "results.jsonl"
Record = dict[str, Any]


def read(folder: Path) -> dict[str, Record]:
    """Finished runs by key.

    Raises:
        UserError: When a line is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    records: dict[str, Record] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is damaged ({error}); delete the line") from error
        records[record["key"]] = record
    return records


def work(runs: Sequence[Run], folder: Path) -> None:
    """Make the runs that are neither finished nor claimed by another process."""
    done = set(read(folder))
    for run in runs:
        problem = problem_of(run.problem, folder)
        key = run.key(problem)
        if key in done:
            continue
        with _claimed(folder, key) as mine:
            if not mine:
                continue
            done = set(read(folder))
            if key not in done:
                record = {"key": key, **execute(run, problem)}
                _append(folder, record)
                print(_line(record), flush=True)


@cache
def problem_of(name: str, folder: Path) -> Problem:
    """The problem, built once in a process."""
    return build_problem(name, folder)


def _append(folder: Path, record: Record) -> None:
    with FileLock(folder / f"{FILE}.lock"), (folder / FILE).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


@contextlib.contextmanager
def _claimed(folder: Path, key: str) -> Iterator[bool]:
    """Claim a run; gives whether this process holds it. The claim of a killed process ends with it."""
    claims = folder / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    lock = FileLock(claims / f"{key}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _line(record: Record) -> str:
    last = max(record["volume"], key=int, default=None)
    volume = "" if last is None else f": {record['volume'][last]:.4f} at {last}"
    return (
        f"{record['problem']}, {record['sampler']}, seed {record['seed']}, {record['workers']} workers"
        f"{volume}, {record['ms_per_trial']:.1f} ms a trial"
    )
