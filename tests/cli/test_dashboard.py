"""``petra dashboard`` serves what a study holds."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from petra_optuna.database import artifacts_folder, open_storage


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(
        storage=open_storage(url), study_name="served", directions=["maximize", "minimize"]
    )
    study.add_trial(optuna.trial.create_trial(values=[0.9, 12.0]))
    artifacts_folder(url).mkdir()
    return url


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _serve(database: str, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "petra_optuna", "dashboard", "--storage", database, "--port", str(port)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def served(database: str, port: int) -> Iterator[str]:
    process = _serve(database, port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def _get(url: str) -> Any:
    for _ in range(400):
        try:
            with urllib.request.urlopen(url) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


def test_the_dashboard_serves_the_study(served: str) -> None:
    (study,) = _get(f"{served}/api/studies")["study_summaries"]
    assert study["study_name"] == "served"
    detail = _get(f"{served}/api/studies/{study['study_id']}?after=0")
    assert [trial["values"] for trial in detail["trials"]] == [[0.9, 12.0]]


def test_a_port_in_use_is_one_clear_line(database: str, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        process = _serve(database, port)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.startswith(f"petra: cannot listen on 127.0.0.1:{port}")
    assert error.count("\n") == 1
