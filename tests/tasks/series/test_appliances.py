from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.series_files import COLUMNS, write_appliances

from petra_optuna.errors import DataError
from petra_optuna.nn.counting import count_parameters
from petra_optuna.nn.inputs import forward
from petra_optuna.tasks import Task, build_task
from petra_optuna.tasks.arrays import first_input
from petra_optuna.tasks.guard import contents
from petra_optuna.tasks.series import appliances
from petra_optuna.tasks.series.network import Past, Scales, build_forecast, build_network

ROWS = 1150
NAMES = COLUMNS[1:]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("appliances")
    scales = Scales((0.0,) * 24, (1.0,) * 24, (0.0, 1.0))
    save_file(build_network(scales, 1).state_dict(), folder / "appliances_archive.safetensors")
    forecast = build_forecast(scales, Past(0, 144, 6))
    save_file(forecast.state_dict(), folder / "appliances.safetensors")
    return folder


@pytest.fixture(scope="module")
def values(home: Path) -> np.ndarray:
    return write_appliances(home / "data" / "appliances", ROWS)


@pytest.fixture(scope="module")
def task(home: Path, values: np.ndarray) -> Task:
    return _build("appliances", home, home / "data")


def _build(name: str, home: Path, root: Path | None) -> Task:
    return build_task(name, data_root=root, checkpoint=home / f"{name}.safetensors", cache_dir=home / "cache")


def test_a_sample_is_a_day_of_24_channels_and_the_mean_of_the_next_hour(
    task: Task, values: np.ndarray
) -> None:
    (inputs,), targets = next(task.train.batches(3))
    columns = [NAMES.index(name) for name in task.preprocess["channels"]]
    assert inputs.shape == (3, 24, 144)
    assert NAMES[columns[0]] == "Appliances"
    assert not {"rv1", "rv2"} & set(task.preprocess["channels"])
    np.testing.assert_allclose(inputs[2], values[6:150, columns].T, rtol=1e-6)
    np.testing.assert_allclose(
        targets, [values[row + 144 : row + 150, 0].mean() for row in (0, 3, 6)], rtol=1e-6
    )
    assert forward(task.model, (inputs,)).shape == (3, 1)


def test_parts_share_no_row_and_scales_come_from_train_alone(task: Task, values: np.ndarray) -> None:
    assert task.test is not None
    parts = [contents(part) for part in (task.train, task.selection, task.test)]
    rows = [{row.tobytes() for row in part.dataset.rows.numpy()} for part in parts]
    assert sum(map(len, rows)) == ROWS - 2 * 144
    assert not rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2]
    first = values[: len(rows[0]), [NAMES.index(name) for name in task.preprocess["channels"]]]
    scales = task.initial().normalize  # type: ignore[misc,operator,union-attr]
    np.testing.assert_allclose(scales.mean.flatten(), first.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scales.std.flatten(), first.std(0), rtol=1e-5)


def test_losses_are_in_deviations_of_the_change_from_the_last_hour(task: Task) -> None:
    batches = list(task.train.batches(256))
    targets = torch.cat([part for _, part in batches])
    last_hour = torch.cat([first_input(inputs)[:, 0, -6:].mean(1) for inputs, _ in batches])
    guess = (last_hour + (targets - last_hour).mean())[:, None]
    assert float(task.loss(guess, targets)) == pytest.approx(1.0, rel=1e-3)
    assert float(task.distillation(guess, targets[:, None], 3.0)) == pytest.approx(1.0, rel=1e-3)
    assert task.block == 144


def test_the_network_is_that_of_the_paper_with_24_channels(task: Task) -> None:
    width, long = 4 * 32, 39 + 19 + 9
    module = 32 * width + 32 * 32 * long + 32 * width + 2 * width
    first = 24 * 32 + 32 * 32 * long + 24 * 32 + 2 * width
    shortcuts = (24 * width + 2 * width) + (width * width + 2 * width)
    expected = first + 5 * module + shortcuts + width + 1
    assert count_parameters(task.model) == expected == 475_777


def test_the_archive_has_137_days_and_their_energy(home: Path, tmp_path: Path) -> None:
    values = write_appliances(tmp_path, 137 * 144 + 7)
    task = _build("appliances_archive", home, tmp_path / "energydata_complete.csv")
    assert task.test is not None
    assert [len(part) for part in (task.train, task.selection, task.test)] == [75, 20, 42]
    (inputs,), targets = next(task.selection.batches(1))
    columns = [NAMES.index(name) for name in task.preprocess["channels"]]
    day = values[75 * 144 : 76 * 144]
    np.testing.assert_allclose(inputs[0], day[:, columns].T, rtol=1e-6)
    np.testing.assert_allclose(targets, [day[:, 0].sum() / 1000], rtol=1e-6)
    assert "Appliances" not in task.preprocess["channels"]
    with pytest.raises(DataError, match="has 1150 rows; the archive's 137 days need 19728"):
        _build("appliances_archive", home, home / "data")


def test_what_is_missing_is_one_line(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give a `data_root` with energydata_complete.csv"):
        _build("appliances", home, None)
    with pytest.raises(DataError, match=r"no energydata_complete.csv in .*, nor in its folder appliances"):
        _build("appliances", home, tmp_path)
    write_appliances(tmp_path, 600)
    with pytest.raises(DataError, match="fewer than two samples of 150 rows, with gaps of 144"):
        _build("appliances", home, tmp_path)
    text = (tmp_path / appliances.FILE).read_text().replace('"T4"', '"T04"')
    (tmp_path / appliances.FILE).write_text(text)
    with pytest.raises(DataError, match="has no column 'T4'"):
        _build("appliances", home, tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    write_appliances(tmp_path, ROWS)
    with pytest.raises(DataError, match="is not a safetensors state_dict of InceptionTime for the task"):
        build_task(
            "appliances", data_root=tmp_path, checkpoint=tmp_path / "other.safetensors", cache_dir=tmp_path
        )
