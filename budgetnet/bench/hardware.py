"""What the machine at hand can do at most, and what a process takes of it, measured."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

_SIDES = {"cpu": 2048, "mps": 4096, "cuda": 8192}
"""Sides of square matrices large enough that the product, not the start of it, takes the time."""
_PRODUCTS = 5


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_macs_per_second(device: torch.device, precision: torch.dtype) -> float:
    """Multiply-accumulates a second of a large matrix product in that precision: the most a network could reach.

    The median of a few products of random matrices, as products of zeros can run faster.
    """
    side = _SIDES[device.type]
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(side, side, generator=generator).to(device, precision) for _ in range(2))

    def seconds() -> float:
        began = time.perf_counter()
        _product(first, second)
        synchronise(device)
        return time.perf_counter() - began

    seconds()
    return side**3 / statistics.median(seconds() for _ in range(_PRODUCTS))


def _product(first: Tensor, second: Tensor) -> Tensor:
    return first @ second


class PeakMemory:
    """The most memory in use since the measurement began: the device's, or on a CPU the process's resident memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            # Linux forgets the process's high-water mark when asked to; where it cannot be asked, there is no figure.
            self._known = _write(Path("/proc/self/clear_refs"), "5")

    def read(self) -> int | None:
        """Bytes, or None where the system does not tell."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if self.device.type == "cpu" and self._known:
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        return False
    return True
