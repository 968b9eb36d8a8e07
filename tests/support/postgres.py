"""A PostgreSQL server of the tests' own: a temporary cluster behind a unix socket, no TCP port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import make_url

SERVER_USER = "postgres"
INSTALLED = Path("/usr/lib/postgresql")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """SQLAlchemy URL of an empty database; skips with the reason where no server can be started."""
    binaries = _binaries()
    prefix = _unprivileged()
    # Not pytest's own directory: the server's user may not enter it, and socket paths end at 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="petra-pg-"))
    try:
        if prefix:
            shutil.chown(home, SERVER_USER)
        data, log = str(home / "data"), str(home / "log")
        initdb = [str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", SERVER_USER, "-E", "UTF8"]
        _run([*prefix, *initdb, "--locale=C", "--no-sync"])
        control = [*prefix, str(binaries / "pg_ctl"), "-D", data, "-w", "-t", "60"]
        options = f"-F -c listen_addresses= -c unix_socket_directories={home} -c max_connections=200"
        _run([*control, "-l", log, "-o", options, "start"])
        try:
            yield f"postgresql+psycopg://{SERVER_USER}@/postgres?host={home}"
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def new_database(url: str, name: str) -> str:
    """URL of a new empty database on the server of ``postgres_url``."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _binaries() -> Path:
    versions = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    if found is None:
        pytest.skip("no initdb: PostgreSQL is not installed")
    return Path(found).resolve().parent


def _unprivileged() -> list[str]:
    """What makes a command run as an ordinary user: the server refuses to be started by root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None:
        pytest.skip("PostgreSQL refuses root, and there is no runuser")
    if SERVER_USER not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip(f"PostgreSQL refuses root, and there is no user {SERVER_USER!r}")
    return ["runuser", "-u", SERVER_USER, "--"]


def _run(command: list[str]) -> None:
    # Output to a file: the server inherits it, and a pipe would stay open until the server ends.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd="/", check=False
        )
        output.seek(0)
        assert done.returncode == 0, f"{' '.join(command)}: {output.read().decode(errors='replace')}"
