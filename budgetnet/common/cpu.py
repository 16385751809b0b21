"""CPU features (cores, bfloat16, AMX) and process settings that make training on a CPU faster."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from budgetnet.common.files import cache_folder, write_text

_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags of instructions that multiply bfloat16."""
_MAX_ISA = "ONEDNN_MAX_CPU_ISA"
"""Environment variable that limits oneDNN's instruction set; read once, when the first kernel runs."""
_WITHOUT_AMX = "AVX512_CORE_FP16"
_PROBE = "import torch; matrix = torch.ones(128, 128, dtype=torch.bfloat16); assert (matrix @ matrix)[0, 0] == 128"
_WORKS, _BROKEN = "works", "broken"
_SETTINGS = "BUDGETNET_CPU_SETTINGS"
"""Environment variable; ``off`` disables this package's settings for training on a CPU."""
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's `mallopt`."""
_ALLOCATOR_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Environment variables that configure glibc's allocator."""
_MMAP_LIMIT, _TRIM_LIMIT = 2**30, 2**31 - 1
"""Bytes: blocks below the first are allocated from the heap; up to the second, freed memory is kept."""

_SAMPLES, _SAMPLE_SECONDS = 20, 0.025
"""Number of looks at the processes that run, and the time between two."""


def available_cores() -> int:
    """Return the number of cores available to this process, which a container or batch job may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_cores() -> int:
    """Return the number of available cores that other processes leave free, at least 1.

    A core counts as used only if as many other processes run all the time for half a second. Where nothing else runs,
    the first look says so. Linux alone tells; elsewhere all available cores count as free.
    """
    available, free = available_cores(), 1
    for number in range(_SAMPLES):
        if number:
            time.sleep(_SAMPLE_SECONDS)
        free = max(free, min(available, (os.cpu_count() or 1) - _others_running()))
        if free == available:
            break
    return free


def _others_running() -> int:
    """Return the number of threads that run or wait for a core now, without the caller's; 0 if unknown."""
    try:
        text = Path("/proc/loadavg").read_text(encoding="ascii")
        return int(text.split()[3].partition("/")[0]) - 1
    except (OSError, ValueError, IndexError):
        return 0


@functools.cache
def has_bfloat16() -> bool:
    """Return whether the CPU has native bfloat16 matrix instructions; False if unknown.

    Without them torch emulates bfloat16, which is slower than float32.
    """
    return not _NATIVE_BFLOAT16.isdisjoint(_flags())


def channels_in_block() -> int:
    """Return how many channels ONNX Runtime's blocked layout keeps together on this CPU; 1 where it has none."""
    if "avx512f" in _flags():
        return 16
    return 8 if platform.machine() in ("x86_64", "AMD64") else 1


def name() -> str:
    """Return the CPU's model name with its family and model number, or its architecture if the model is unknown.

    Many virtual machines leave only the brand of the name: the numbers tell the generations apart.
    """
    facts: dict[str, str] = {}
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    found = facts.get("model name") or platform.processor() or platform.machine()
    numbered = "cpu family" in facts and "model" in facts
    return f"{found} (family {facts['cpu family']}, model {facts['model']})" if numbered else found


def prepare() -> None:
    """Configure this process for training on the CPU; call it before torch's first convolution or matrix product.

    Disables AMX where it crashes and makes the allocator keep freed memory. Repeated calls have no effect.
    """
    disable_broken_amx()
    keep_freed_memory()


def uses_settings() -> bool:
    """Return whether the settings for faster training on a CPU are enabled (the default).

    The environment variable ``BUDGETNET_CPU_SETTINGS=off`` disables them, for comparison or debugging.
    """
    return os.environ.get(_SETTINGS) != "off"


@functools.cache
def keep_freed_memory() -> bool:
    """Make glibc's allocator keep freed memory for the next step; return whether it does.

    By default, glibc returns freed blocks above a threshold (128 KiB to 32 MiB) to the system, and allocating them
    again costs a page fault per page: 51,000 faults per step for the reference network at batch size 128. Does nothing
    with another C library, if environment variables configure the allocator, or if the settings are disabled.
    """
    if sys.platform != "linux" or not uses_settings() or any(name in os.environ for name in _ALLOCATOR_VARIABLES):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    limits = ((_MMAP_THRESHOLD, _MMAP_LIMIT), (_TRIM_THRESHOLD, _TRIM_LIMIT))
    return all(mallopt(parameter, value) == 1 for parameter, value in limits)


@functools.cache
def disable_broken_amx() -> None:
    """Disable AMX, the CPU's matrix tiles, if using it would crash the process.

    Some virtual machines report AMX but do not support it: the first bfloat16 product raises an illegal-instruction
    signal. A subprocess tests this once per machine and torch version. Does nothing if ``ONEDNN_MAX_CPU_ISA`` is set.
    Call it before torch's first convolution or matrix product.
    """
    if "amx_bf16" in _flags() and _MAX_ISA not in os.environ and _amx_status() == _BROKEN:
        os.environ[_MAX_ISA] = _WITHOUT_AMX


def _amx_status() -> str:
    """Return whether AMX works, from the cache if it was tested before."""
    root = cache_folder()
    machine = "\n".join((name(), platform.platform(), platform.node(), version("torch")))
    file = root / "tiles" / hashlib.sha256(machine.encode()).hexdigest()[:32] if root else None
    if file:
        with suppress(OSError, ValueError):
            cached = file.read_text(encoding="utf-8").strip()
            if cached in (_WORKS, _BROKEN):
                return cached
    # Without -P, a file torch.py in the working folder would run. Only death by a signal means that AMX is broken;
    # other failures, such as an import error, do not.
    probe = [sys.executable, "-P", "-c", _PROBE]
    exit_code = subprocess.run(probe, capture_output=True, check=False).returncode  # noqa: S603
    status = _BROKEN if exit_code < 0 else _WORKS
    if file:
        with suppress(OSError):
            write_text(file, status)
    return status


def _flags() -> frozenset[str]:
    return frozenset(next((line.split() for line in _cpuinfo() if line.startswith(("flags", "Features"))), []))


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
