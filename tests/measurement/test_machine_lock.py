from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from petra_optuna.errors import UserError
from petra_optuna.measurement import machine_lock
from petra_optuna.measurement.machine_lock import MachineLock

HOLDER = """
import sys, time
from petra_optuna.measurement.machine_lock import MachineLock
with MachineLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def name() -> str:
    return f"petra-optuna-test-{os.getpid()}-{time.monotonic_ns()}"


@contextlib.contextmanager
def holder(name: str, tmpdir: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, with a temporary folder of its own."""
    environment = {**os.environ, "TMPDIR": tmpdir}
    command = [sys.executable, "-c", HOLDER, name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_whoever_holds_it_keeps_others_out_whatever_their_tmpdir_and_a_stopped_one_is_named(
    name: str, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(name, str(tmp_path)) as process:
        os.kill(process.pid, signal.SIGSTOP)
        lock = MachineLock(name, say_after_s=0.1, longest_wait_s=0.4)
        with pytest.raises(UserError, match="has kept this machine from measuring for 0 s") as caught, lock:
            pass
        assert "\n" not in str(caught.value)
        assert len(caplog.messages) == 1
        if sys.platform == "linux":
            assert f"process {process.pid} of user {os.getuid()}" in str(caught.value)
            assert f"process {process.pid} of user {os.getuid()}" in caplog.messages[0]


def test_it_is_free_once_its_process_is_killed_and_a_short_wait_is_not_told(
    name: str, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(name, str(tmp_path)) as process:
        process.kill()
        with MachineLock(name, longest_wait_s=10.0):
            pass
    with MachineLock(name, longest_wait_s=0.0):  # and free again after the block
        pass
    assert not caplog.messages


def test_where_there_are_no_abstract_sockets_it_is_a_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_lock.sys, "platform", "darwin")
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with MachineLock(name):
        second = MachineLock(name, longest_wait_s=0.0)
        with pytest.raises(UserError, match="another process has kept"), second:
            pass
    with MachineLock(name, longest_wait_s=0.0):
        pass
