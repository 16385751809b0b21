"""What this processor can do, and what it only says that it can."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from budgetnet.files import cache_root, write_text

_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names under which systems list instructions that multiply bfloat16."""
_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""The variable that keeps torch's kernels from instructions; they read it when the first of them runs."""
_WITHOUT_TILES = "AVX512_CORE_FP16"
_PROBE = "import torch; matrix = torch.ones(128, 128, dtype=torch.bfloat16); assert (matrix @ matrix)[0, 0] == 128"
_WORKS, _BROKEN = "works", "broken"


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
