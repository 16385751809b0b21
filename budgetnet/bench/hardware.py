"""What the machine at hand can do at most, and what a process takes of it, measured."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

_SIDES = {"cpu": 2048, "mps": 4096, "cuda": 8192}
"""Sides of square matrices large enough that the product, not the start of it, takes the time."""
_PIXELS = 64
"""Pixels of an image in the product as a convolution."""
_PRODUCTS = 5


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_macs_per_second(device: torch.device, precision: torch.dtype) -> float:
    """Multiply-accumulates a second of a large matrix product in that precision: the most a network could reach.

    The faster of torch's two ways to one product, as on some processors they come from libraries of different speed: as
    such, and as a convolution of a single pixel. The median of a few products of random matrices each, as products of
    zeros can run faster.
    """
    side = _SIDES[device.type]
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(side, side, generator=generator).to(device, precision) for _ in range(2))
    images = first.view(side // _PIXELS, _PIXELS, 1, side).permute(0, 3, 1, 2)
    weights = second.view(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
    ways = (lambda: first @ second.T, lambda: functional.conv2d(images, weights))
    return side**3 / min(_seconds(way, device) for way in ways)


def _seconds(product: Callable[[], Tensor], device: torch.device) -> float:
    """Median over a few products, behind one that is not counted."""
    times = []
    for _ in range(1 + _PRODUCTS):
        began = time.perf_counter()
        product()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


class PeakMemory:
    """The most memory in use since the measurement began: the device's, or on a CPU the process's resident memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            _give_back_free_memory()
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


def _give_back_free_memory() -> None:
    """Has the C library return what was freed earlier, which would be counted as in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        return False
    return True
