"""Memory of this machine that a process can still use, on Linux."""

from __future__ import annotations

import ctypes
import re
import sys
from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


def available_memory(*, meminfo: Path = _MEMINFO, container: Path = _CONTAINER) -> int | None:
    """Return the bytes that are available without swapping, within the limit of a container; None where unknown.

    Args:
        meminfo: the kernel's file of the machine's memory.
        container: folder of the control group's files.
    """
    found = []
    with suppress(OSError):
        if match := re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE):
            found.append(1024 * int(match[1]))
    # No file, or "max", means no limit.
    with suppress(OSError, ValueError):
        limit, used = (int((container / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used + _reclaimable(container)))
    return min(found, default=None)


def return_freed_memory() -> None:
    """Have the C library return freed memory to the system, which would otherwise count as in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _reclaimable(container: Path) -> int:
    """Return the bytes of cached files, which count as used and are given up when memory is needed."""
    match = re.search(r"^inactive_file (\d+)$", (container / "memory.stat").read_text(), re.MULTILINE)
    return int(match[1]) if match else 0
