from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from petra_optuna.errors import TaskError
from petra_optuna.nn.inputs import Inputs, forward
from petra_optuna.tasks import TASKS, Task, build_task, open_once
from petra_optuna.tasks.digits import digits_splits


def test_the_three_splits_part_the_images_and_hold_every_class() -> None:
    splits = digits_splits()
    images = [tuple(split.dataset.samples.flatten(1).tolist()[0]) for split in splits.values()]  # type: ignore[attr-defined]
    assert len(set(images)) == 3
    sizes = {name: len(split) for name, split in splits.items()}
    assert sum(sizes.values()) == 1797
    assert sizes["test"] / 1797 == pytest.approx(0.2, abs=0.01)
    assert sizes["selection"] / 1797 == pytest.approx(0.16, abs=0.01)
    for split in splits.values():
        counts = Counter(split.dataset.targets.tolist())  # type: ignore[attr-defined]
        assert len(counts) == 10
        assert max(counts.values()) < 1.2 * min(counts.values())


def test_the_base_reads_unseen_digits_from_raw_pixels(digits_task: Task) -> None:
    def predict(inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            return forward(digits_task.model, inputs).numpy()

    assert digits_task.test is not None
    assert digits_task.evaluate(predict, open_once(digits_task.test)) >= 0.975
    assert digits_task.evaluate(predict, digits_task.selection) >= 0.975
    inputs, _ = next(digits_task.selection.batches(64))
    assert isinstance(inputs, tuple)
    assert (inputs[0].min(), inputs[0].max()) == tuple(digits_task.preprocess["range"])
    assert list(inputs[0].shape[1:]) == digits_task.preprocess["size"]


def test_data_that_it_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="digits brings its data"):
        build_task("digits", data_root=tmp_path, cache_dir=tmp_path)


def test_an_unknown_task_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(
        TaskError, match=f"unknown task 'digit'; known: {', '.join(TASKS)}; or build your own"
    ):
        build_task("digit", cache_dir=tmp_path)
