"""Age group of bank clients by their card transactions (Sberbank's competition "Python and data analysis").

Sizes, slices, batch, epochs and classifier are those of the published experiments of CoLES
(arXiv 2002.08232, section 4). They train with Adam at 0.001 and lower the rate every 30 epochs; here AdamW
goes through one cycle of that peak, as all bases of this package do.
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

EVENTS, TARGETS, MORE_EVENTS = "transactions_train.csv", "train_target.csv", "transactions_test.csv"
SCHEMA = EventSchema(
    "client_id",
    "trans_date",
    (Category("trans_date", 16, 800), Category("small_group", 16, 250)),
    (Number("amount_rur"),),
)
COLES = Coles(
    cell="gru",
    hidden=800,
    embedding=None,
    slices=5,
    shortest=25,
    longest=200,
    recipe=BaseRecipe(epochs=150, batch_size=64, peak_lr=1e-3, optimizer="adamw"),
    quality="accuracy",
    classifier=Classifier(
        trees=1000, depth=12, leaves=50, features=0.75, samples=0.75, l1=1.0, l2=1.0, least_leaf=50
    ),
)


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Age group of bank clients by their purchases, a GRU trained by CoLES; needs ``tables``.

    An event is a card transaction: day, group of the shop, amount. Clients of ``transactions_test.csv``,
    where that file is there, have no class and train the encoder only.

    Args:
        data_root: A folder with ``transactions_train.csv`` and ``train_target.csv``, or with such a folder
            ``age_group``.
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
    folder = data_folder("age_group", data_root, EVENTS)
    more = tuple(path for path in (folder / MORE_EVENTS,) if path.is_file())
    return table_source("age_group", (folder / EVENTS, *more), folder / TARGETS, SCHEMA, "bins")
