"""Peak memory of a process. Linux counts it; elsewhere it is not measured."""

from __future__ import annotations

import contextlib
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak memory of this process from when this was made.

    It needs a process of its own: memory that was freed before is used again without being counted.
    """

    def __init__(self) -> None:
        # Where the peak may not be reset it stays where loading the libraries left it.
        with contextlib.suppress(OSError):
            _RESET.write_text("5", encoding="utf-8")
        self._began = _resident("VmRSS")

    def bytes(self) -> int | None:
        """Largest resident bytes since this was made, less those at that moment; at least a page.

        None where the system does not count them.
        """
        highest = _resident("VmHWM")
        if highest is None or self._began is None:
            return None
        return max(highest - self._began, 4096)


def _resident(name: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
