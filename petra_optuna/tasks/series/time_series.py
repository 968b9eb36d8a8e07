"""Any table with a column of times: values or classes from windows of its rows, by InceptionTime."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from petra_optuna.aliases import Array
from petra_optuna.errors import DataError
from petra_optuna.tasks.checks import check_classes
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits, classification_task
from petra_optuna.tasks.metrics import Metric, metric
from petra_optuna.tasks.series.network import Past, Scales, build_forecast, build_network
from petra_optuna.tasks.series.schema import NAME, Schema, read_schema
from petra_optuna.tasks.series.table import SeriesTable, read_series
from petra_optuna.tasks.series.task import BaseOrigin, base_of, regression_task
from petra_optuna.tasks.series.windows import Sliding, sliding_splits
from petra_optuna.tasks.task import Task

logger = logging.getLogger(__name__)


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Values or classes of a time series of your own, InceptionTime on windows; a CSV or parquet file.

    Rows are split by time into train, selection and test with a gap between the parts; scales come from train
    alone. Windows across missing rows are left out.

    Args:
        data_root: A JSON file (see ``schema.Schema``) or a folder with one that is named ``series.json``.
        checkpoint: safetensors with the state_dict of ``build_network``. When None the base is trained and
            kept under ``cache_dir``.
        cache_dir: Folder in which the base is kept.
        seed: Seed of the base's training.

    Raises:
        DataError: When schema, table or checkpoint are missing, damaged or do not fit.
        TaskError: When the metric is unknown, or pyarrow is needed and not installed.
    """
    if data_root is None:
        raise DataError(f"time_series brings no data; give a `data_root`, a folder with {NAME}")
    schema, path = read_schema(data_root)
    table, names = _read(schema, path)
    labels = _labels(table, schema)
    sliding = sliding_splits(
        table.channels(names),
        _values(table, schema, labels),
        table.holes,
        window=schema.window,
        horizon=schema.horizon,
        shares=schema.shares,
        gap=schema.gap,
        stride=schema.stride,
    )
    if sliding.holes:
        logger.warning("%s has %d holes; windows across missing rows are left out", path, sliding.holes)
    data = LabeledSplits("time_series", sliding.splits, labels, _preprocess(schema, names, table.step))
    quality = metric(schema.metric or ("accuracy" if labels else "rmse"))
    if quality.regression == bool(labels):
        raise DataError(f"`metric` {quality.name} is not for {schema.kind}")
    check_classes(data.splits["train"], labels)
    scales, make = _network(sliding, schema, names, len(labels))
    return _task(data, scales, make, schema, quality, BaseOrigin(checkpoint, cache_dir, seed))


def _network(
    sliding: Sliding, schema: Schema, names: tuple[str, ...], classes: int
) -> tuple[Scales, Callable[[], nn.Module]]:
    """The scales of train, and what makes the network: a forecast where a window holds the target's past."""
    if classes or schema.target not in names:
        scales = Scales.of(sliding.rows, names, None if classes else sliding.targets)
        return scales, functools.partial(build_network, scales, classes or 1, schema.filters, schema.depth)
    past = Past(names.index(schema.target), schema.window, min(schema.horizon, schema.window))
    scales = Scales.of(sliding.rows, names, sliding.targets - past.persistence(sliding.rows, sliding.starts))
    return scales, functools.partial(build_forecast, scales, past, schema.filters, schema.depth)


def _task(
    data: LabeledSplits,
    scales: Scales,
    make: Callable[[], nn.Module],
    schema: Schema,
    quality: Metric,
    base: BaseOrigin,
) -> Task:
    recipe = BaseRecipe(epochs=schema.epochs, batch_size=64, peak_lr=2e-3, optimizer="adamw")
    block = -(-(schema.window + schema.horizon) // schema.stride)
    if scales.target is not None:
        return regression_task(data, make, recipe, quality, scales.target[1], base, block)
    task = classification_task(data, base_of(data, make, recipe, base), make)
    return dataclasses.replace(task, metric=quality, block=block)


def _preprocess(schema: Schema, names: tuple[str, ...], step: float) -> dict[str, object]:
    return {
        "layout": "NCT",
        "size": [len(names), schema.window],
        "channels": list(names),
        "step": step,
        "target": schema.target,
        "horizon": schema.horizon,
    }


def _read(schema: Schema, path: Path) -> tuple[SeriesTable, tuple[str, ...]]:
    """The table, and the names of the channels."""
    is_class = schema.kind == "classification"
    texts = (schema.target,) if is_class else ()
    numbers = None
    if schema.channels:
        numbers = schema.channels if is_class else tuple(dict.fromkeys((*schema.channels, schema.target)))
    table = read_series(path, schema.time, numbers, texts)
    if not is_class and schema.target not in table.numbers:
        raise DataError(f"{path} has no column {schema.target!r}; it has {', '.join(table.numbers)}")
    unseen = (schema.target,) if is_class or schema.horizon == 0 else ()
    names = schema.channels or tuple(name for name in table.numbers if name not in unseen)
    if not names:
        raise DataError(f"{path} has no column that the model could see besides {schema.target!r}")
    return table, tuple(names)


def _labels(table: SeriesTable, schema: Schema) -> tuple[str, ...]:
    """Names of the classes in the order of their index; none for values."""
    if schema.kind == "regression":
        return ()
    labels = tuple(sorted(set(table.texts[schema.target])))
    if len(labels) < 2:
        raise DataError(f"column {schema.target!r} has the one class {labels[0]!r}; at least 2 are needed")
    return labels


def _values(table: SeriesTable, schema: Schema, labels: tuple[str, ...]) -> Array:
    """Value of each row, or the index of its class."""
    if not labels:
        return table.numbers[schema.target]
    index = {label: number for number, label in enumerate(labels)}
    return np.array([index[text] for text in table.texts[schema.target]], dtype=np.int64)
