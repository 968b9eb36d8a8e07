"""Default of credit-card clients by six monthly statements (Yeh and Lien 2009, UCI data set 350).

The file has a client a row. ``PAY_0`` is the state of the repayment in September, ``PAY_2`` to ``PAY_6``
those of August to April, and the amounts ``1`` to ``6`` go the same way back in time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.tasks.arrow import arrow
from petra_optuna.tasks.classification import BaseRecipe
from petra_optuna.tasks.events.downstream import Classifier
from petra_optuna.tasks.events.files import Kind, read_batches
from petra_optuna.tasks.events.parts import read_targets
from petra_optuna.tasks.events.schema import Category, EventSchema, Number
from petra_optuna.tasks.events.store import EventSource
from petra_optuna.tasks.events.tables import data_folder
from petra_optuna.tasks.events.task import Coles, event_task
from petra_optuna.tasks.task import Task

FILE = "UCI_Credit_Card.csv"
CLIENT, TARGET, LIMIT = "ID", "default.payment.next.month", "LIMIT_BAL"
STATES = ("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6")
BILLS = tuple(f"BILL_AMT{month}" for month in range(1, 7))
PAYMENTS = tuple(f"PAY_AMT{month}" for month in range(1, 7))
MONTHS = len(STATES)

SCHEMA = EventSchema(
    CLIENT,
    "month",
    (Category("state", 8),),
    (Number("bill", "log"), Number("payment", "log"), Number("share_of_limit")),
)
COLES = Coles(
    cell="gru",
    hidden=256,
    embedding=64,
    slices=5,
    shortest=2,
    longest=5,
    recipe=BaseRecipe(epochs=10, batch_size=256, peak_lr=2e-3, optimizer="adamw"),
    quality="auc",
    classifier=Classifier(),
)


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Default of credit-card clients by their last six months, a GRU trained by CoLES; needs ``tables``.

    An event is a month: state of the repayment, bill, payment, and the bill as a share of the limit.

    Args:
        data_root: A folder with ``UCI_Credit_Card.csv``, or with such a folder ``credit_default``.
        checkpoint: safetensors with the state_dict of the encoder. When None it is trained and kept.
        cache_dir: Folder of the stored events and of the encoder.
        seed: Seed of the encoder's training.

    Raises:
        DataError: When file or checkpoint are missing, damaged or of another layout.
        TaskError: When pyarrow is not installed.
    """
    return event_task(source(data_root), COLES, checkpoint=checkpoint, cache_dir=cache_dir, seed=seed)


def source(data_root: Path | None) -> EventSource:
    """The file of ``data_root`` as events.

    Args:
        data_root: Folder of the file.

    Raises:
        DataError: When there is no such file.
    """
    path = data_folder("credit_default", data_root, FILE) / FILE
    return EventSource(
        "credit_default",
        (path,),
        SCHEMA,
        functools.partial(_events, path),
        functools.partial(_targets, path),
        (str(path), str(path)),
    )


def _targets(path: Path) -> Mapping[str, str]:
    batches = read_batches(path, {CLIENT: "text", TARGET: "text"})
    return read_targets(batches, CLIENT, TARGET, str(path))


def _events(path: Path) -> Iterator[Any]:
    """Record batches of six events a client, from April to September."""
    numbers = (LIMIT, *BILLS, *PAYMENTS)
    texts: dict[str, Kind] = dict.fromkeys((CLIENT, *STATES), "text")
    columns: dict[str, Kind] = {**texts, **dict.fromkeys(numbers, "number")}
    pyarrow = arrow()
    for batch in read_batches(path, columns):
        limits = batch.column(LIMIT).to_numpy(zero_copy_only=False)
        for month in range(MONTHS):
            back = MONTHS - 1 - month
            bill = batch.column(BILLS[back])
            share = bill.to_numpy(zero_copy_only=False) / np.where(limits > 0, limits, np.nan)
            yield pyarrow.RecordBatch.from_pydict(
                {
                    CLIENT: batch.column(CLIENT),
                    "month": np.full(batch.num_rows, month),
                    "state": batch.column(STATES[back]),
                    "bill": bill,
                    "payment": batch.column(PAYMENTS[back]),
                    "share_of_limit": share,
                }
            )
