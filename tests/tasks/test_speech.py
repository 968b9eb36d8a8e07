from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.io import wavfile
from support.wav_files import level, write_flat

from petra_optuna.errors import DataError
from petra_optuna.models import M5
from petra_optuna.tasks import Task, build_task, speech
from petra_optuna.tasks.arrays import SampleArray
from petra_optuna.tasks.guard import contents
from petra_optuna.tasks.recordings import find_recordings
from petra_optuna.tasks.speech import random_time_shift

FILES = [f"{word}/{speaker:08x}_nohash_0.wav" for word in ("no", "yes") for speaker in range(40)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_file(M5(1, 2, speech.EMBEDDING).state_dict(), tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


def _build(root: Path, checkpoint: Path, cache: Path) -> Task:
    return build_task("speech", data_root=root, checkpoint=checkpoint, cache_dir=cache)


def _rows(task: Task, part: str) -> list[tuple[int, int]]:
    """First sample and class of each clip of a split."""
    dataset = contents(getattr(task, part)).dataset
    assert isinstance(dataset, SampleArray)
    assert not dataset.samples[:, :, 40:].any()
    return list(zip(dataset.samples[:, 0, 0].tolist(), dataset.targets.tolist(), strict=True))


def test_every_clip_is_in_the_split_and_class_of_its_file(tmp_path: Path, checkpoint: Path) -> None:
    root = write_flat(tmp_path / "data", FILES)
    task = _build(root, checkpoint, tmp_path / "cache")
    recordings = find_recordings(root)
    paths = [Path(file.path).relative_to(root).as_posix() for file in recordings.files]
    for part in ("train", "selection", "test"):
        expected = [
            (level(path), ("no", "yes").index(path.partition("/")[0]))
            for path, own in zip(paths, recordings.parts, strict=True)
            if own == part
        ]
        assert _rows(task, part) == expected
    assert task.labels == ("no", "yes")


def test_clips_reach_the_model_as_described(tmp_path: Path, checkpoint: Path) -> None:
    task = _build(write_flat(tmp_path / "data", FILES), checkpoint, tmp_path / "cache")
    inputs, _ = next(task.selection.batches(2))
    assert isinstance(inputs, tuple)
    assert inputs[0].dtype == torch.float32
    assert list(inputs[0].shape[1:]) == task.preprocess["size"]
    assert inputs[0][0, 0, 0] == _rows(task, "selection")[0][0] / 32768
    assert task.model(inputs[0]).shape == (2, 2)
    weights = load_file(checkpoint)
    assert all(torch.equal(value, weights[name]) for name, value in task.model.state_dict().items())


def test_decoded_clips_are_kept_and_a_changed_file_is_seen(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = write_flat(tmp_path / "data", FILES), tmp_path / "cache"
    decoded, original = [], speech.read_clip

    def counting(path: str, **settings: int):  # type: ignore[no-untyped-def]
        decoded.append(path)
        return original(path, **settings)

    monkeypatch.setattr(speech, "read_clip", counting)
    first = _build(root, checkpoint, cache)
    assert len(decoded) == len(FILES)
    assert _build(root, checkpoint, cache).fingerprint == first.fingerprint
    assert len(decoded) == len(FILES)
    wavfile.write(root / FILES[3], 8000, torch.ones(50, dtype=torch.int16).numpy())
    assert _build(root, checkpoint, cache).fingerprint != first.fingerprint
    assert len(decoded) == 2 * len(FILES)


def test_each_shift_is_a_window_of_the_padded_clip_and_all_of_them_occur() -> None:
    clip = torch.arange(1.0, 6.0).view(1, 1, 5)
    windows = [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 0], [3, 4, 5, 0, 0]]
    shifted = random_time_shift(clip.repeat(200, 1, 1), 2, torch.Generator().manual_seed(0))
    assert {windows.index(one[0].tolist()) for one in shifted} == set(range(5))


def test_only_training_clips_move(tmp_path: Path, checkpoint: Path) -> None:
    task = _build(write_flat(tmp_path / "data", FILES), checkpoint, tmp_path / "cache")
    (still,), _ = next(task.train.batches(16))
    (moved,), _ = next(task.train.batches(16, augment=True))
    (again,), _ = next(task.train.batches(16, augment=True))
    assert not torch.equal(still, moved)
    assert torch.equal(moved, again)
    assert task.selection.augment is None


def test_a_class_without_training_clips_and_a_short_split_are_refused(
    tmp_path: Path, checkpoint: Path
) -> None:
    root = write_flat(tmp_path / "data", FILES)
    (root / "testing_list.txt").write_text("\n".join(path for path in FILES if path.startswith("no/")))
    (root / "validation_list.txt").write_text("\n".join(FILES[-2:]))
    with pytest.raises(DataError, match="class 'no' has no training sample"):
        _build(root, checkpoint, tmp_path / "cache")
    (root / "validation_list.txt").write_text(FILES[-1])
    with pytest.raises(DataError, match="the selection split has 1 samples; at least 2 are needed"):
        _build(root, checkpoint, tmp_path / "cache")


def test_what_is_missing_is_one_line(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(DataError, match="speech brings no data; give a `data_root`"):
        build_task("speech", cache_dir=tmp_path)
    root = write_flat(tmp_path / "data", FILES)
    save_file(M5(1, 3, speech.EMBEDDING).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"other.safetensors is not .* of M5\(1, 2, 64\)"):
        _build(root, tmp_path / "other.safetensors", tmp_path / "cache")
    (root / FILES[0]).write_text("no sound")
    with pytest.raises(DataError, match=r"00000000_nohash_0.wav is not a readable WAV file"):
        _build(root, checkpoint, tmp_path / "cache")
