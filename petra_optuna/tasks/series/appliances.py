"""Energy that the appliances of one house use, from what its sensors and a weather station say.

Candanedo, Feldheim and Deramaix, "Data driven prediction models of energy use of appliances in a low-energy
house", Energy and Buildings 2017: 19,735 rows, one every ten minutes from January to May 2016.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from petra_optuna.errors import DataError
from petra_optuna.tasks.classification import BaseRecipe, LabeledSplits
from petra_optuna.tasks.metrics import metric
from petra_optuna.tasks.series.network import Past, Scales, build_forecast, build_network
from petra_optuna.tasks.series.table import SeriesTable, read_series
from petra_optuna.tasks.series.task import BaseOrigin, regression_task
from petra_optuna.tasks.series.windows import sliding_splits, windows_split
from petra_optuna.tasks.task import Task

FILE, TIME, TARGET = "energydata_complete.csv", "date", "Appliances"
WINDOW = 144
"""Steps of ten minutes in a window: one day."""
HORIZON = 6
"""Steps behind the window over which the energy is averaged: one hour."""
SHARES = (0.6, 0.2, 0.2)
TRAIN_STRIDE = 3
"""Steps from a window of train to the next one: nearer ones say nearly the same and cost as much."""

_ROOMS = tuple(f"{name}{room}" for room in range(1, 10) for name in ("T", "RH_"))
_WEATHER = ("T_out", "RH_out", "Windspeed", "Tdewpoint")
CHANNELS = (TARGET, "lights", *_ROOMS, *_WEATHER)
"""The 24 channels of the sliding windows: the past of the target is among them."""
ARCHIVE_CHANNELS = (*_ROOMS, "T_out", "Press_mm_hg", "RH_out", "Windspeed", "Visibility", "Tdewpoint")
"""The 24 channels of the archive's windows: climate alone."""
ARCHIVE_PARTS = {"train": range(0, 75), "selection": range(75, 95), "test": range(95, 137)}
"""Days of each split; the archive has 95 days for training and 42 for testing."""

RECIPE = BaseRecipe(epochs=5, batch_size=64, peak_lr=2e-3, optimizer="adamw")
ARCHIVE_RECIPE = BaseRecipe(epochs=200, batch_size=16, peak_lr=1e-3, optimizer="adamw")


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Energy use of a house in the next hour, InceptionTime on sliding windows of a day; the CSV file.

    The input is a window (24, 144) in the file's units, the output the mean of ``Appliances`` over the six
    steps behind it, in Wh per ten minutes, shape (1,). Rows are split by time, 60 % train, 20 % selection and
    20 % test, with a gap of one window between the parts. Scales come from train alone.

    Args:
        data_root: ``energydata_complete.csv``, a folder with it, or with such a folder ``appliances``.
        checkpoint: safetensors with the state_dict of ``build_forecast``. When None the base is trained,
            which takes minutes, and kept under ``cache_dir``.
        cache_dir: Folder in which the base is kept.
        seed: Seed of the base's training.

    Raises:
        DataError: When the file or the checkpoint is missing, damaged or of another layout.
    """
    table = _read(data_root, CHANNELS)
    sliding = sliding_splits(
        table.channels(CHANNELS),
        table.numbers[TARGET],
        table.holes,
        window=WINDOW,
        horizon=HORIZON,
        shares=SHARES,
        train_stride=TRAIN_STRIDE,
    )
    described = {"target": f"mean of {TARGET} over the next {HORIZON} steps", "unit": "Wh per 10 minutes"}
    data = LabeledSplits("appliances", sliding.splits, (), _preprocess(CHANNELS, described))
    past = Past(CHANNELS.index(TARGET), WINDOW, HORIZON)
    change = sliding.targets - past.persistence(sliding.rows, sliding.starts)
    scales = Scales.of(sliding.rows, CHANNELS, change)
    make = functools.partial(build_forecast, scales, past)
    return _task(data, scales, make, RECIPE, BaseOrigin(checkpoint, cache_dir, seed), block=WINDOW)


def build_archive(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Energy use of a house on a day, InceptionTime on 137 days of climate; the CSV file.

    The form of the regression archive (Tan et al., arXiv 2006.10996): the input is a day (24, 144) of climate
    inside and outside, the output the energy of that day in kWh, shape (1,). Days follow one another in
    train, selection and test. With 42 test days no difference of a few percent can be resolved.

    Arguments and errors are those of ``build``.
    """
    table = _read(data_root, (*ARCHIVE_CHANNELS, TARGET))
    rows = table.channels(ARCHIVE_CHANNELS)
    days = ARCHIVE_PARTS["test"].stop
    if len(rows) < days * WINDOW:
        raise DataError(f"{FILE} has {len(rows)} rows; the archive's {days} days need {days * WINDOW}")
    energy_kwh = table.numbers[TARGET][: days * WINDOW].reshape(days, WINDOW).sum(axis=1) / 1000
    splits = {
        name: windows_split(
            rows[part.start * WINDOW : part.stop * WINDOW],
            np.arange(len(part)) * WINDOW,
            WINDOW,
            energy_kwh[part.start : part.stop],
        )
        for name, part in ARCHIVE_PARTS.items()
    }
    described = {"target": "sum of Appliances over the window", "unit": "kWh"}
    data = LabeledSplits("appliances_archive", splits, (), _preprocess(ARCHIVE_CHANNELS, described))
    train = ARCHIVE_PARTS["train"]
    scales = Scales.of(rows[: train.stop * WINDOW], ARCHIVE_CHANNELS, energy_kwh[: train.stop])
    make = functools.partial(build_network, scales, 1)
    return _task(data, scales, make, ARCHIVE_RECIPE, BaseOrigin(checkpoint, cache_dir, seed), block=1)


def _task(
    data: LabeledSplits,
    scales: Scales,
    make: Callable[[], nn.Module],
    recipe: BaseRecipe,
    base: BaseOrigin,
    block: int,
) -> Task:
    assert scales.target is not None
    return regression_task(data, make, recipe, metric("rmse"), scales.target[1], base, block)


def _read(data_root: Path | None, names: tuple[str, ...]) -> SeriesTable:
    if data_root is None:
        raise DataError(f"the energy data is not downloaded; give a `data_root` with {FILE}")
    for path in (data_root, data_root / FILE, data_root / "appliances" / FILE):
        if path.is_file():
            return read_series(path, TIME, names)
    raise DataError(f"no {FILE} in {data_root}, nor in its folder appliances")


def _preprocess(names: tuple[str, ...], described: dict[str, str]) -> dict[str, object]:
    return {
        "layout": "NCT",
        "size": [len(names), WINDOW],
        "channels": list(names),
        "step_s": 600,
        **described,
    }
