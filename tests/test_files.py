from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from petra_optuna.errors import DataError
from petra_optuna.files import write_to_cache


def test_a_file_appears_whole_and_readable(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    with write_to_cache(target) as temporary:
        temporary.write_bytes(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    assert target.stat().st_mode & 0o444 == 0o444
    assert list(target.parent.iterdir()) == [target]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with write_to_cache(target) as temporary:
            temporary.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    message = r"cannot write file.bin to .*No space left on device.*free space"
    with pytest.raises(DataError, match=message), write_to_cache(tmp_path / "file.bin"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())
