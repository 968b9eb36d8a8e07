"""Memory of a process: its peak, and a limit. Linux counts both; elsewhere there is neither."""

from __future__ import annotations

import contextlib
from pathlib import Path

from petra_optuna.errors import RuntimeFailed

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
        self._began = _status_bytes("VmRSS")

    def bytes(self) -> int | None:
        """Largest resident bytes since this was made, less those at that moment; at least a page.

        None where the system does not count them.
        """
        highest = _status_bytes("VmHWM")
        if highest is None or self._began is None:
            return None
        return max(highest - self._began, 4096)


def limit_memory(more: int) -> None:
    """Make allocations fail once this process has ``more`` bytes of private memory beyond those it has now.

    Raises:
        RuntimeFailed: When this system cannot do that.
    """
    has = _status_bytes("VmData")
    try:
        import resource  # not on every system
    except ImportError:
        has = None
    if has is None:
        raise RuntimeFailed("this system cannot limit a process's memory as the device asks")
    resource.setrlimit(resource.RLIMIT_DATA, (has + more, has + more))


def _status_bytes(name: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
