from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

MAKER = """
import sys, time
from petra_optuna.scratch import scratch_folder
with scratch_folder("feeds") as folder:
    print(folder, flush=True)
    if sys.argv[1] == "stays":
        time.sleep(60)
"""


def _start(tmpdir: Path, what: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, what],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmpdir)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _grow_old(home: Path) -> None:
    os.utime(home, (time.time() - 3600,) * 2)


@pytest.mark.skipif(os.name != "posix", reason="no locks on folders")
def test_a_process_removes_what_dead_ones_left_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    living, in_use = _start(tmp_path, "stays")
    dead, left = _start(tmp_path, "stays")
    just_dead, fresh = _start(tmp_path, "stays")
    for process in (dead, just_dead):
        process.kill()
        process.wait()
    others = tmp_path / "petra-mine"
    others.mkdir()
    for folder in (in_use.parent, left.parent, others):
        _grow_old(folder)
    try:
        last, own = _start(tmp_path, "goes")
        assert last.wait() == 0
        assert not left.parent.exists()
        assert not own.parent.exists()  # an ordinary end leaves nothing
        # What is younger than a minute may belong to a process that has not locked it yet.
        assert all(folder.exists() for folder in (in_use, fresh, others))
    finally:
        living.kill()
        living.wait()
