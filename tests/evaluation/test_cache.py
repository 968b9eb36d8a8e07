from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from petra_optuna.errors import StudyError
from petra_optuna.evaluation import CacheEntry, PrefixCache


def _entry(size: int, fill: int = 0) -> CacheEntry:
    return CacheEntry([{"op": "prune", "changed": True}], bytes([fill]) * size)


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path / "cache")
    cache.put("a", _entry(100, 7))
    assert cache.get("a") == _entry(100, 7)
    assert cache.get("b") is None


@pytest.mark.parametrize("position", [0, 40, -1])
def test_a_damaged_entry_counts_as_missing_and_is_removed(tmp_path: Path, position: int) -> None:
    cache = PrefixCache(tmp_path)
    cache.put("a", _entry(100))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
    assert cache.get("a") is None
    assert not path.exists()


def test_a_cut_off_entry_counts_as_missing(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path)
    cache.put("a", _entry(100))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:10])
    assert cache.get("a") is None


def test_the_least_recently_used_entries_leave_first(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, max_bytes=3_500)
    for position, key in enumerate("abc"):
        cache.put(key, _entry(1_000))
        os.utime(tmp_path / f"{key}.prefix", ns=(position, position))
    assert cache.get("a") is not None  # now the most recently used
    cache.put("d", _entry(1_000))
    assert {key for key in "abcd" if cache.get(key) is not None} == {"a", "c", "d"}


def test_an_entry_larger_than_the_bound_is_kept_alone(tmp_path: Path) -> None:
    cache = PrefixCache(tmp_path, max_bytes=10)
    cache.put("a", _entry(5))
    cache.put("b", _entry(1_000))
    assert cache.get("a") is None
    assert cache.get("b") is not None


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StudyError, match=r"cache folder .* cannot be written"):
        PrefixCache(tmp_path / "file").put("a", _entry(1))


def _hammer(folder: Path) -> int:
    cache = PrefixCache(folder, max_bytes=20_000)
    torn = 0
    for turn in range(60):
        key = f"k{turn % 5}"
        cache.put(key, _entry(2_000 + turn % 5, turn % 5))
        found = cache.get(f"k{(turn + 2) % 5}")
        torn += found is not None and len(set(found.checkpoint)) != 1
    return torn


def test_many_processes_never_see_half_an_entry(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_hammer, [tmp_path] * 4) == [0] * 4


def test_entries_of_another_user_are_read_and_otherwise_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrefixCache(tmp_path, max_bytes=2_500)
    for key in "ab":
        cache.put(key, _entry(1_000))
    (tmp_path / "damaged.prefix").write_bytes(b"nothing of ours")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert cache.get("a") == _entry(1_000)
    assert cache.get("damaged") is None
    with monkeypatch.context() as patch:
        patch.setattr("petra_optuna.files.write_atomically", lambda path, data: path.write_bytes(data))
        cache.put("c", _entry(1_000))  # over the bound, and nobody's entry may leave
    assert {key for key in "abc" if cache.get(key) is not None} == {"a", "b", "c"}
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert cache.get("a") is None
