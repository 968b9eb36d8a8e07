"""How much memory a process needed at its highest. Linux counts it; elsewhere it is not measured."""

from __future__ import annotations

import contextlib
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from its making on, in a process of its own: what was given back before is used again unseen."""

    def __init__(self) -> None:
        # Where the mark may not be reset it stands where loading the libraries left it.
        with contextlib.suppress(OSError):
            _RESET.write_text("5")
        self._began = _resident("VmRSS")

    def bytes(self) -> int | None:
        """Resident bytes at the highest since the making, less those at the making; at least a page."""
        highest = _resident("VmHWM")
        if highest is None or self._began is None:
            return None
        return max(highest - self._began, 4096)


def _resident(name: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
