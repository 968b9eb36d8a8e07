from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.wav_files import write_flat

from petra_optuna.errors import DataError
from petra_optuna.tasks.recordings import Recordings, find_recordings, hash_percent

SPEAKERS, TAKES = range(60), range(2)
WORDS = [
    f"{word}/{speaker:08x}_nohash_{take}.wav"
    for word in ("no", "yes")
    for speaker in SPEAKERS
    for take in TAKES
]


def _parts(recordings: Recordings, root: Path) -> dict[str, str]:
    paths = [Path(file.path).relative_to(root).as_posix() for file in recordings.files]
    return dict(zip(paths, recordings.parts, strict=True))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("026290a7_nohash_0.wav", 0, 10),
        ("060cd039_nohash_0.wav", 0, 10),
        ("0c40e715_nohash_0.wav", 10, 20),
        ("0ea0e2f4_nohash_0.wav", 10, 20),
    ],
)
def test_the_hash_decides_as_the_lists_of_speech_commands_do(name: str, least: int, most: int) -> None:
    """Files of ``bed`` at the head of its validation and testing lists."""
    assert least <= hash_percent(name) < most


def test_without_lists_a_speaker_has_one_split(tmp_path: Path) -> None:
    parts = _parts(find_recordings(write_flat(tmp_path, WORDS)), tmp_path)
    by_speaker: dict[str, set[str]] = {}
    for path, part in parts.items():
        by_speaker.setdefault(path.split("/")[1].partition("_")[0], set()).add(part)
    assert all(len(found) == 1 for found in by_speaker.values())
    assert set(parts.values()) == {"train", "selection", "test"}


def test_a_tenth_of_many_speakers_is_selection_and_a_tenth_is_test() -> None:
    percents = [hash_percent(f"{speaker:08x}_nohash_0.wav") for speaker in range(5000)]
    assert sum(percent < 10 for percent in percents) == pytest.approx(500, rel=0.15)
    assert sum(10 <= percent < 20 for percent in percents) == pytest.approx(500, rel=0.15)


def test_lists_decide_where_they_are_and_the_hash_where_they_are_not(tmp_path: Path) -> None:
    by_hash = _parts(find_recordings(write_flat(tmp_path, WORDS)), tmp_path)
    (tmp_path / "testing_list.txt").write_text("no/00000001_nohash_0.wav\r\n\nyes/00000002_nohash_1.wav\n")
    parts = _parts(find_recordings(tmp_path), tmp_path)
    test = {path for path, part in parts.items() if part == "test"}
    assert test == {"no/00000001_nohash_0.wav", "yes/00000002_nohash_1.wav"}
    selection = {path for path, part in by_hash.items() if part == "selection"} - test
    assert {path for path, part in parts.items() if part == "selection"} == selection
    (tmp_path / "validation_list.txt").write_text("no/00000005_nohash_1.wav\n")
    parts = _parts(find_recordings(tmp_path), tmp_path)
    assert Counter(parts.values()) == {"test": 2, "selection": 1, "train": len(WORDS) - 3}
    assert parts["no/00000005_nohash_1.wav"] == "selection"


def test_noise_and_hidden_files_are_no_words(tmp_path: Path) -> None:
    write_flat(tmp_path, [*WORDS, "_background_noise_/rain.wav", ".git/x.wav", "no/._a.wav"])
    recordings = find_recordings(tmp_path)
    assert recordings.labels == ("no", "yes")
    assert len(recordings.files) == len(WORDS)
    names = [recordings.labels[target] for target in recordings.targets]
    assert names == [Path(file.path).parent.name for file in recordings.files]


@pytest.mark.parametrize("nested", ["", "fsdd"])
def test_the_first_five_takes_of_spoken_digits_are_test(tmp_path: Path, nested: str) -> None:
    names = [f"{digit}_{who}_{take}.wav" for digit in (3, 7) for who in ("ann", "bo_b") for take in range(50)]
    folder = tmp_path / nested / "recordings"
    write_flat(folder, names)
    recordings = find_recordings(tmp_path)
    parts = _parts(recordings, folder)
    assert recordings.labels == ("3", "7")
    assert [recordings.labels[target] for target in recordings.targets] == [path[0] for path in parts]
    for path, part in parts.items():
        take = int(path.rpartition("_")[2].partition(".")[0])
        assert (part == "test") == (take < 5)
    counts = Counter(parts.values())
    assert counts["selection"] == pytest.approx(0.1 * 180, rel=0.5)


def _nowhere(root: Path) -> str:
    root.rename(root.with_name("moved"))
    return "is no folder"


def _empty(root: Path) -> str:
    for word in ("no", "yes"):
        (root / word).rename(root.with_name(word))
    return "has no class folders"


def _one_class(root: Path) -> str:
    (root / "no").rename(root.with_name("no"))
    return "the one class 'yes'; at least 2"


def _empty_class(root: Path) -> str:
    (root / "maybe").mkdir()
    return "maybe has no .wav file"


def _class_gone(root: Path) -> str:
    (root / "testing_list.txt").write_text("bed/00000000_nohash_0.wav\n")
    return r"testing_list.txt names class 'bed', whose folder is missing"


def _file_gone(root: Path) -> str:
    (root / "validation_list.txt").write_text("no/ffffffff_nohash_0.wav\n")
    return r"validation_list.txt names no/ffffffff_nohash_0.wav, which is missing"


def _in_both(root: Path) -> str:
    for name in ("validation_list.txt", "testing_list.txt"):
        (root / name).write_text("no/00000000_nohash_0.wav\n")
    return "both name no/00000000_nohash_0.wav"


def _no_text(root: Path) -> str:
    (root / "testing_list.txt").write_bytes(b"\xff\xfe\x00")
    return "testing_list.txt cannot be read"


def _other_name(root: Path) -> str:
    write_flat(root / "recordings", ["7_ann_0.wav", "seven.wav"])
    return r"seven.wav is not named <digit>_<speaker>_<index>.wav"


def _one_digit(root: Path) -> str:
    write_flat(root / "recordings", ["7_ann_0.wav", "7_ann_8.wav"])
    return "the one class '7'"


def _no_digit(root: Path) -> str:
    (root / "recordings").mkdir()
    return "recordings has no .wav file"


CASES = (
    *(_nowhere, _empty, _one_class, _empty_class, _class_gone, _file_gone, _in_both, _no_text),
    *(_other_name, _one_digit, _no_digit),
)


@pytest.mark.parametrize("spoil", CASES)
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = write_flat(tmp_path / "data", WORDS[::30])
    message = spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        find_recordings(root)
    assert "\n" not in str(caught.value)
