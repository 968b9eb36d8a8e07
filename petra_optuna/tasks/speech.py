"""Spoken words, one a clip, and M5 on the raw samples."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from petra_optuna.errors import DataError
from petra_optuna.models import M5
from petra_optuna.nn.inputs import Inputs
from petra_optuna.tasks.arrays import array_split, first_input
from petra_optuna.tasks.checks import check_classes, check_split
from petra_optuna.tasks.classification import (
    BaseRecipe,
    LabeledSplits,
    classification_task,
    load_checkpoint,
    trained_base,
)
from petra_optuna.tasks.decoded import decoded_once
from petra_optuna.tasks.recordings import find_recordings
from petra_optuna.tasks.split import Split
from petra_optuna.tasks.task import Task
from petra_optuna.tasks.wav import FULL_SCALE, read_clip

RATE_HZ, LENGTH = 8_000, 8_000
"""Sample rate of the clips, that of the paper of M5, and their number of samples: one second."""

LARGEST_SHIFT = 800
"""Samples by which training clips move in time: 100 ms, as in TensorFlow's training on Speech Commands."""

EMBEDDING = 64
RECIPE = BaseRecipe(epochs=15, batch_size=64, peak_lr=0.1, label_smoothing=0.05)


def build(
    *, data_root: Path | None = None, checkpoint: Path | None = None, cache_dir: Path, seed: int = 0
) -> Task:
    """Spoken words, M5 on clips of one second; WAV files by class from ``data_root``.

    Clips are float32 (1, 8000) in [-1, 1], one channel at 8 kHz. Which files are selection and test:
    see ``find_recordings``.

    Args:
        data_root: A folder of Speech Commands (``<class>/*.wav``) or of Free Spoken Digits
            (``recordings/<digit>_<speaker>_<index>.wav``).
        checkpoint: safetensors with the state_dict of ``M5(1, classes, 64)``. When None the base is trained
            and kept under ``cache_dir``.
        cache_dir: Folder of the decoded clips and the base.
        seed: Seed of the base's training.

    Raises:
        DataError: When recordings or checkpoint are missing, damaged or of another layout.
    """
    data = read_speech(data_root, cache_dir)
    network = functools.partial(M5, 1, len(data.labels), EMBEDDING)
    if checkpoint is not None:
        model = network()
        load_checkpoint(model, checkpoint, f"M5(1, {len(data.labels)}, {EMBEDDING})")
        return classification_task(data, model.eval(), network)
    base = trained_base(
        data,
        network,
        RECIPE,
        structure={"classes": len(data.labels), "embedding": EMBEDDING},
        cache_dir=cache_dir,
        seed=seed,
        notice=f"no checkpoint given: training the base for {RECIPE.epochs} epochs",
    )
    return classification_task(data, base, network)


def read_speech(data_root: Path | None, cache_dir: Path) -> LabeledSplits:
    """The splits that ``build`` describes; training clips move by up to 100 ms in time.

    Args:
        data_root: Folder of the recordings.
        cache_dir: Folder of the decoded clips: 16 kB a clip, all of them in memory.

    Raises:
        DataError: When the folder is missing or of another layout, a recording cannot be decoded, or a split
            has too few of them.
    """
    if data_root is None:
        raise DataError("speech brings no data; give a `data_root` with <class>/*.wav or recordings/*.wav")
    recordings = find_recordings(data_root)
    clips = decoded_once(
        recordings.files,
        functools.partial(read_clip, rate_hz=RATE_HZ, length=LENGTH),
        shape=(LENGTH,),
        dtype=np.int16,
        name="clips",
        key=f"{RATE_HZ} {LENGTH}",
        cache_dir=cache_dir,
    )
    parts, targets = np.array(recordings.parts), np.array(recordings.targets)
    splits = {
        name: _split(name, clips[parts == name], targets[parts == name])
        for name in ("train", "selection", "test")
    }
    check_classes(splits["train"], recordings.labels)
    preprocess = {"layout": "NCT", "sample_rate_hz": RATE_HZ, "range": [-1, 1], "size": [1, LENGTH]}
    return LabeledSplits("speech", splits, recordings.labels, preprocess)


def random_time_shift(clips: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """Move each clip (B, C, T) by up to ``largest`` samples to either side; zeros follow."""
    count, _, length = clips.shape
    windows = functional.pad(clips, (largest, largest)).unfold(2, length, 1)
    offsets = torch.randint(0, 2 * largest + 1, (count,), generator=generator)
    return windows[torch.arange(count), :, offsets]


def _split(name: str, clips: np.ndarray, targets: np.ndarray) -> Split:
    augment = _augment if name == "train" else None
    samples = torch.from_numpy(clips).unsqueeze(1)
    split = array_split(samples, torch.from_numpy(targets).long(), float(FULL_SCALE), augment)
    split = dataclasses.replace(split, name=name)
    check_split(split)
    return split


def _augment(inputs: Inputs, generator: torch.Generator) -> Inputs:
    return (random_time_shift(first_input(inputs), LARGEST_SHIFT, generator),)
