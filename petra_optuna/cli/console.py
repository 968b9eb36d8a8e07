"""The terminal, or the file or pipe that stands in for it."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.status import Status
from rich.text import Text

_PIPE_COLUMNS = 160
"""Rich takes a pipe for a terminal of 80 columns, too narrow for a front."""


def make_console(quiet: bool = False) -> Console:
    """A console on stdout that prints names, paths and reasons as they are, square brackets included."""
    console = Console(quiet=quiet, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console


def busy(console: Console, text: str) -> Status:
    """A spinner with a text, for the time of the block."""
    return console.status(Text(text))


def escape_unprintable() -> None:
    """Have stdout and stderr escape the characters that the locale's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
