"""Tables of events in the layouts that people have, small and made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from petra_optuna.tasks.arrow import arrow

VALUES = ("bread", "fuel", "rent")
"""Categories of the planted events, each as frequent as the others in every class."""
SCHEMA = {
    "events": "events.csv",
    "targets": "targets.csv",
    "target": "label",
    "client": "client",
    "time": "day",
    "categories": {"shop": {"width": 4}},
    "numbers": {"amount": {"transform": "log"}},
    "slices": {"count": 5, "shortest": 10, "longest": 25},
    "encoder": {"hidden": 32, "embedding": 16},
    "training": {"epochs": 10, "batch_size": 32, "peak_lr": 0.01},
    "quality": "auc",
}


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A CSV file with a header, columns side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_schema(folder: Path, **changes: Any) -> Path:
    """The schema of the planted events, with changes."""
    path = folder / "schema.json"
    path.write_text(json.dumps({**SCHEMA, **changes}), encoding="utf-8")
    return path


def write_planted(folder: Path, clients: int, events: int = 40, seed: int = 0) -> Path:
    """Clients whose class is the direction in which they go round the three shops; counts say nothing.

    From an event to the next one a client goes on with probability 0.9 and to a random shop else. A third of
    the clients have half as many events.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("client", "day", "shop", "amount")}
    labels = rng.integers(0, 2, clients)
    for client, label in enumerate(labels):
        count = events // 2 if client % 3 == 0 else events
        shop = rng.integers(3)
        for day in range(count):
            step = 1 if label else -1
            shop = (shop + step) % 3 if rng.random() < 0.9 else rng.integers(3)
            columns["client"].append(f"c{client}")
            columns["day"].append(day)
            columns["shop"].append(VALUES[shop])
            columns["amount"].append(f"{rng.lognormal(3, 1):.2f}")
    write_csv(folder / "events.csv", columns)
    write_csv(
        folder / "targets.csv",
        {"client": [f"c{client}" for client in range(clients)], "label": labels.tolist()},
    )
    write_schema(folder)
    return folder


def write_age(folder: Path, clients: int = 24) -> Path:
    """Age Group as the competition gives it; the last quarter of the clients has no class."""
    rng = np.random.default_rng(1)
    labelled = clients * 3 // 4
    for name, first, end in (("train", 0, labelled), ("test", labelled, clients)):
        rows = [(client, day) for client in range(first, end) for day in range(3 + client % 4)]
        write_csv(
            folder / f"transactions_{name}.csv",
            {
                "client_id": [33172 + client for client, _ in rows],
                "trans_date": [day for _, day in rows],
                "small_group": rng.integers(1, 203, len(rows)).tolist(),
                "amount_rur": rng.lognormal(3, 1, len(rows)).round(3).tolist(),
            },
        )
    given = range(labelled)
    write_csv(
        folder / "train_target.csv",
        {"client_id": [33172 + client for client in given], "bins": [client % 4 for client in given]},
    )
    write_csv(folder / "test.csv", {"client_id": [33172 + client for client in range(labelled, clients)]})
    return folder


ALFA_CATEGORIES = (
    *("currency", "operation_kind", "card_type", "operation_type", "operation_type_group"),
    *("ecommerce_flag", "payment_system", "income_flag", "mcc", "country", "city", "mcc_category"),
    *("day_of_week", "hour", "days_before", "weekofyear"),
)


def write_alfa(folder: Path, clients: int = 20, parts: int = 2) -> Path:
    """Alfa Battle 2.0 as the competition gives it: parts in parquet, and targets."""
    pyarrow, parquet = arrow(), arrow("parquet")
    rng = np.random.default_rng(2)
    (folder / "train_transactions_contest").mkdir(parents=True)
    for part in range(parts):
        own = [client for client in range(clients) if client * parts // clients == part]
        rows = [(client, number) for client in own for number in range(1, 4 + client % 5)]
        columns = {name: rng.integers(1, 6, len(rows)).astype(np.int32) for name in ALFA_CATEGORIES}
        columns["app_id"] = np.array([client for client, _ in rows], dtype=np.int32)
        columns["amnt"] = rng.random(len(rows))
        columns["hour_diff"] = rng.integers(-1, 300, len(rows))
        columns["transaction_number"] = np.array([number for _, number in rows])
        name = f"part_{part:03}_{own[0]}_to_{own[-1]}.parquet"
        parquet.write_table(pyarrow.table(columns), folder / "train_transactions_contest" / name)
    write_csv(
        folder / "alfabattle2_train_target.csv",
        {
            "app_id": list(range(clients)),
            "product": [client % 5 for client in range(clients)],
            "flag": [int(client % 4 == 0) for client in range(clients)],
        },
    )
    return folder


def write_credit(folder: Path, clients: int = 20) -> Path:
    """UCI's credit-card clients; client 7 has the bill 70 + m in month m of the file, September being 1."""
    numbers = range(1, clients + 1)
    columns: dict[str, list[Any]] = {"ID": list(numbers), "LIMIT_BAL": [1000] * clients}
    for name in ("SEX", "EDUCATION", "MARRIAGE", "AGE"):
        columns[name] = [1] * clients
    for month in (0, 2, 3, 4, 5, 6):
        columns[f"PAY_{month}"] = [month if client == 7 else -1 for client in numbers]
    for kind, factor in (("BILL", 10), ("PAY", 1)):
        for month in range(1, 7):
            columns[f"{kind}_AMT{month}"] = [factor * client + month for client in numbers]
    columns["default.payment.next.month"] = [int(client % 4 == 0) for client in numbers]
    write_csv(folder / "UCI_Credit_Card.csv", columns)
    return folder


def write_journey(folder: Path, households: int = 24) -> Path:
    """The Complete Journey: purchases of households, of which two thirds have an age."""
    rows = [(household, basket) for household in range(households) for basket in range(4 + household % 3)]
    write_csv(
        folder / "transactions.csv",
        {
            "household_id": [household for household, _ in rows],
            "transaction_timestamp": [f"2017-0{1 + basket}-07 18:55:24" for _, basket in rows],
            "department": ["GROCERY" if basket % 2 else "" for _, basket in rows],
            "product_category": [f"CATEGORY {basket}" for _, basket in rows],
            "quantity": [1.0] * len(rows),
            "sales_value": [2.5 + basket for _, basket in rows],
            "retail_disc": [0.0] * len(rows),
            "coupon_disc": [0.0] * len(rows),
            "store_id": [436] * len(rows),
        },
    )
    given = range(households * 2 // 3)
    ages = ("19-24", "65+")
    write_csv(
        folder / "demographics.csv",
        {"household_id": list(given), "age": [ages[household % 2] for household in given]},
    )
    return folder
