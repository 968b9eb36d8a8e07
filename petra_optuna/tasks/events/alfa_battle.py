"""Default of bank clients by their card transactions (Alfa Battle 2.0, competition of Alfa-Bank).

Sizes, slices, batch, epochs and classifier are those of the published experiments of CoLES
(arXiv 2002.08232, section 4). They train with Adam at 0.001 and lower the rate each epoch; here AdamW goes
through one cycle of that peak, as all bases of this package do.
"""

from __future__ import annotations

from pathlib import Path

from petra_optuna.tasks.classification import BaseRecipe
from petra_optuna.tasks.events.downstream import Classifier
from petra_optuna.tasks.events.files import table_files
from petra_optuna.tasks.events.schema import Category, EventSchema, Number
from petra_optuna.tasks.events.store import EventSource
from petra_optuna.tasks.events.tables import data_folder, table_source
from petra_optuna.tasks.events.task import Coles, event_task
from petra_optuna.tasks.task import Task

EVENTS, TARGETS = "train_transactions_contest", "alfabattle2_train_target.csv"
SCHEMA = EventSchema(
    "app_id",
    "transaction_number",
    (
        Category("currency", 2, 13),
        Category("operation_kind", 2, 9),
        Category("operation_type", 4, 24),
        Category("operation_type_group", 32, 6),
        Category("ecommerce_flag", 1, 5),
        Category("payment_system", 4, 9),
        Category("income_flag", 1, 5),
        Category("mcc", 32, 110),
        Category("mcc_category", 16, 30),
        Category("day_of_week", 2, 9),
        Category("hour", 4, 25),
        Category("weekofyear", 4, 55),
    ),
    (Number("amnt"), Number("hour_diff", "log")),
)
COLES = Coles(
    cell="gru",
    hidden=1024,
    embedding=None,
    slices=5,
    shortest=20,
    longest=60,
    recipe=BaseRecipe(epochs=30, batch_size=256, peak_lr=1e-3, optimizer="adamw"),
    quality="auc",
    classifier=Classifier(),
)


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Default of bank clients by their transactions, a GRU trained by CoLES; needs ``tables``.

    An event is a card transaction of twelve categories, an amount and the hours since the one before.

    Args:
        data_root: A folder with ``train_transactions_contest`` (parquet files) and
            ``alfabattle2_train_target.csv``, or with such a folder ``alfa_battle``.
        checkpoint: safetensors with the state_dict of the encoder. When None it is trained and kept,
            which takes days on a CPU.
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
    folder = data_folder("alfa_battle", data_root, EVENTS)
    return table_source("alfa_battle", table_files(folder, EVENTS), folder / TARGETS, SCHEMA, "flag")
