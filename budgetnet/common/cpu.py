"""What this processor can do, what it only says that it can, and settings that make training on it faster."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from budgetnet.common.files import cache_root, write_text

_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names under which systems list instructions that multiply bfloat16."""
_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""The variable that keeps torch's kernels from instructions; they read it when the first of them runs."""
_WITHOUT_TILES = "AVX512_CORE_FP16"
_PROBE = "import torch; matrix = torch.ones(128, 128, dtype=torch.bfloat16); assert (matrix @ matrix)[0, 0] == 128"
_WORKS, _BROKEN = "works", "broken"
_SETTINGS = "BUDGETNET_CPU_SETTINGS"
"""The variable that turns this package's settings for training on a CPU off: ``off``."""
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's `mallopt`."""
_ALLOCATOR_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Variables by which a user sets glibc's allocator."""
_LARGEST_BLOCK, _MOST_KEPT = 2**30, 2**31 - 1
"""Bytes: blocks up to the first come from the heap, and up to the second are kept when they are freed."""


def available_cores() -> int:
    """Count the cores that this process may run on: in a container or a batch job often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by instructions of its own.

    Without them torch computes in bfloat16 all the same, but slower than in float32. Where the system does not tell, it
    is taken to have none.
    """
    return not _NATIVE_BFLOAT16.isdisjoint(_flags())


def name() -> str:
    """The processor's model where the system tells, else its architecture."""
    models = (line.partition(":")[2].strip() for line in _description() if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def prepare() -> None:
    """Set this process up for computing on the processor; must be called before torch's first convolution or product.

    Avoids matrix tiles that do not work and has the allocator keep freed memory. Repeated calls do nothing.
    """
    avoid_broken_tiles()
    keep_freed_memory()


def uses_settings() -> bool:
    """Return whether settings that make training on a CPU faster are on, as they are by default.

    The environment variable ``BUDGETNET_CPU_SETTINGS=off`` turns them off, to compare or to find the cause of an error.
    """
    return os.environ.get(_SETTINGS) != "off"


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc's allocator keep freed memory for the next step; return whether it does.

    By default blocks of more than 128 KiB to 32 MiB are returned to the system when they are freed, and each page costs
    a page fault when the next step asks for them again: 51,000 faults a step for the reference at batch 128. Nothing is
    changed under another C library, or where environment variables set the allocator or turn the settings off.
    """
    if sys.platform != "linux" or not uses_settings() or any(name in os.environ for name in _ALLOCATOR_VARIABLES):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    limits = ((_MMAP_THRESHOLD, _LARGEST_BLOCK), (_TRIM_THRESHOLD, _MOST_KEPT))
    return all(mallopt(parameter, value) == 1 for parameter, value in limits)


@functools.cache
def avoid_broken_tiles() -> None:
    """Keeps torch from the processor's matrix tiles (AMX) where using them would end the process.

    Some virtual machines show their guests a processor with tiles, and then do not let them use these: the first
    product in bfloat16 ends the process by an illegal instruction. Whether it does is tried out in a process of its
    own, once for a machine and a version of torch. Nothing is done where the variable that limits torch's kernels is
    set already. Must come before torch's first convolution or product.
    """
    if "amx_bf16" in _flags() and _LIMIT not in os.environ and _tiles() == _BROKEN:
        os.environ[_LIMIT] = _WITHOUT_TILES


def _tiles() -> str:
    """Whether the tiles work, from an earlier answer if there is one."""
    root = cache_root()
    about = "\n".join((name(), platform.platform(), platform.node(), version("torch")))
    file = root / "tiles" / hashlib.sha256(about.encode()).hexdigest()[:32] if root else None
    if file:
        with suppress(OSError, ValueError):
            known = file.read_text(encoding="utf-8").strip()
            if known in (_WORKS, _BROKEN):
                return known
    # By a signal: any other failure, such as one to import, says nothing of the tiles.
    ended = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False).returncode  # noqa: S603
    answer = _BROKEN if ended < 0 else _WORKS
    if file:
        with suppress(OSError):
            write_text(file, answer)
    return answer


def _flags() -> frozenset[str]:
    return frozenset(next((line.split() for line in _description() if line.startswith(("flags", "Features"))), []))


def _description() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
