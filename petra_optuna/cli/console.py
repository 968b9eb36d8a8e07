"""The terminal, or the file or pipe that stands in for it."""

from __future__ import annotations

from rich.console import Console

_PIPE_COLUMNS = 160
"""Rich takes a pipe for a terminal of 80 columns, too narrow for a front."""


def make_console(quiet: bool = False) -> Console:
    """A console on stdout."""
    console = Console(quiet=quiet)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console
