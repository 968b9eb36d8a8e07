"""Age of households by their purchases (The Complete Journey, 84.51°).

Few households have an age, so scores are weak and their intervals wide.
"""

from __future__ import annotations

from pathlib import Path

from petra_optuna.tasks.classification import BaseRecipe
from petra_optuna.tasks.events.downstream import Classifier
from petra_optuna.tasks.events.schema import Category, EventSchema, Number
from petra_optuna.tasks.events.store import EventSource
from petra_optuna.tasks.events.tables import data_folder, table_source
from petra_optuna.tasks.events.task import Coles, event_task
from petra_optuna.tasks.task import Task

EVENTS, TARGETS = "transactions.csv", "demographics.csv"
SCHEMA = EventSchema(
    "household_id",
    "transaction_timestamp",
    (Category("department", 4), Category("product_category", 16)),
    (Number("quantity", "log"), Number("sales_value", "log"), Number("retail_disc", "log")),
)
COLES = Coles(
    cell="gru",
    hidden=256,
    embedding=64,
    slices=5,
    shortest=5,
    longest=30,
    recipe=BaseRecipe(epochs=30, batch_size=64, peak_lr=2e-3, optimizer="adamw"),
    quality="auc",
    classifier=Classifier(),
)


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Age of households by their purchases, a GRU trained by CoLES; needs ``tables``.

    An event is a product of a purchase: department, category, quantity, price and discount.

    Args:
        data_root: A folder with ``transactions.csv`` and ``demographics.csv``, or with such a folder
            ``completejourney``.
        checkpoint: safetensors with the state_dict of the encoder. When None it is trained and kept,
            which takes minutes.
        cache_dir: Folder of the stored events and of the encoder.
        seed: Seed of the encoder's training.

    Raises:
        DataError: When files or checkpoint are missing, damaged or of another layout.
        TaskError: When pyarrow is not installed.
    """
    return event_task(source(data_root), COLES, checkpoint=checkpoint, cache_dir=cache_dir, seed=seed)


def source(data_root: Path | None) -> EventSource:
    """The files of ``data_root`` as events.

    Args:
        data_root: Folder of the files.

    Raises:
        DataError: When a file is missing.
    """
    folder = data_folder("completejourney", data_root, EVENTS)
    return table_source("completejourney", (folder / EVENTS,), folder / TARGETS, SCHEMA, "age")
