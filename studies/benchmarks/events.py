"""Print how long made-up events of an official layout take to load, and the peak memory of that.

    python -m studies.benchmarks.events age_group --events 4300000
    python -m studies.benchmarks.events alfa_battle --events 21000000

Files of so many events are written in the layout of the competition, each client's events out of order for
Age Group and in parts of parquet for Alfa Battle. A process of its own reads them into an empty cache, opens
them again, and makes the batches of an epoch of slices. Seconds are those of the clock, memory is the largest
resident set of the process, libraries included (``ru_maxrss``).
"""

from __future__ import annotations

import csv
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.tasks.arrow import arrow
from petra_optuna.tasks.events import age_group, alfa_battle
from petra_optuna.tasks.events.store import EventSource, open_store
from petra_optuna.tasks.events.task import Coles, event_splits
from studies import script

CHUNK = 500_000
"""Events that are made at a time."""
UNIT = 1024 if sys.platform != "darwin" else 1
"""Bytes in which ``ru_maxrss`` counts."""
SOURCES: dict[str, tuple[Callable[[Path], EventSource], Coles]] = {
    "age_group": (age_group.source, age_group.COLES),
    "alfa_battle": (alfa_battle.source, alfa_battle.COLES),
}


def main() -> None:
    """Make the files, load them and print the table."""
    parser = script.parser(__doc__)
    parser.add_argument("layout", choices=SOURCES)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--clients", type=int, help="number of clients; a client has 145 events by default")
    given = parser.parse_args()
    clients = given.clients or max(20, given.events // 145)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = WRITERS[given.layout](folder / "data", given.events, clients)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            first_s, again_s, epoch_s, peak = pool.submit(load, given.layout, folder).result()
    header = ("layout", "events", "clients", "files, MB", "load, s", "open again, s", "slices, s", "peak, GB")
    row = (given.layout, given.events, clients, f"{size / 1e6:.0f}", f"{first_s:.1f}", f"{again_s:.2f}")
    script.print_table(header, [(*row, f"{epoch_s:.1f}", f"{peak / 1e9:.2f}")])


def load(layout: str, folder: Path) -> tuple[float, float, float, float]:
    """Seconds of loading, of opening again and of an epoch's batches, and the most bytes of this process."""
    source, coles = SOURCES[layout]
    began = time.perf_counter()
    open_store(source(folder / "data"), folder / "cache")
    first_s = time.perf_counter() - began
    began = time.perf_counter()
    store = open_store(source(folder / "data"), folder / "cache")
    again_s = time.perf_counter() - began
    train = event_splits(layout, store, coles).splits["train"]
    began = time.perf_counter()
    for _ in train.batches(coles.recipe.batch_size, shuffle_seed=0, augment=True):
        pass
    epoch_s = time.perf_counter() - began
    return first_s, again_s, epoch_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def write_age(folder: Path, events: int, clients: int) -> int:
    """Write ``transactions_train.csv`` and ``train_target.csv``; the number of their bytes."""
    folder.mkdir(parents=True)
    pyarrow, writing = arrow(), arrow("csv")
    path, header = folder / age_group.EVENTS, True
    with open(path, "wb") as file:
        for rng, of_client in _chunks(events, clients):
            table = pyarrow.table(
                {
                    "client_id": of_client,
                    "trans_date": rng.integers(0, 730, len(of_client)),
                    "small_group": rng.zipf(1.5, len(of_client)) % 203 + 1,
                    "amount_rur": rng.lognormal(3.5, 1.2, len(of_client)).round(3),
                }
            )
            writing.write_csv(table, file, writing.WriteOptions(include_header=header))
            header = False
    _write_targets(folder / age_group.TARGETS, {"client_id": range(clients), "bins": _classes(clients, 4)})
    return path.stat().st_size


def write_alfa(folder: Path, events: int, clients: int) -> int:
    """Write the parts of the transactions and the targets; the number of bytes of the parts."""
    parts = folder / alfa_battle.EVENTS
    parts.mkdir(parents=True)
    size = 0
    for number, (rng, of_client) in enumerate(_chunks(events, clients)):
        count = len(of_client)
        columns: dict[str, Any] = {
            category.name: rng.integers(0, category.rows or 2, count, dtype=np.int32)
            for category in alfa_battle.SCHEMA.categories
        }
        columns["app_id"] = of_client
        columns["transaction_number"] = np.arange(count)
        columns["amnt"] = rng.random(count)
        columns["hour_diff"] = rng.integers(-1, 500, count)
        path = parts / f"part_{number:03}.parquet"
        arrow("parquet").write_table(arrow().table(columns), path)
        size += path.stat().st_size
    columns = {"app_id": range(clients), "product": [0] * clients, "flag": _classes(clients, 2)}
    _write_targets(folder / alfa_battle.TARGETS, columns)
    return size


WRITERS = {"age_group": write_age, "alfa_battle": write_alfa}


def _chunks(events: int, clients: int) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    """A generator and the client of each event, in runs that ascend over the chunks."""
    for first in range(0, events, CHUNK):
        numbers = np.arange(first, min(first + CHUNK, events), dtype=np.int64)
        yield np.random.default_rng(first), numbers * clients // events


def _classes(clients: int, count: int) -> list[int]:
    return np.random.default_rng(0).integers(0, count, clients).tolist()  # type: ignore[no-any-return]


def _write_targets(path: Path, columns: dict[str, Any]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


if __name__ == "__main__":
    script.run(main)
