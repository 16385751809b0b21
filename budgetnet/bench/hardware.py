"""Peak performance of this machine, and the peak memory of a process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from budgetnet.common.memory import return_freed_memory

_SIDES = {"cpu": 2048, "mps": 4096, "cuda": 8192}
"""Sides of square matrices, large enough for the product to take much longer than its launch."""
_PIXELS = 64
"""Pixels per image when the product is computed as a convolution."""
_PRODUCTS = 5


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all work in its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_macs_per_second(device: torch.device, precision: torch.dtype) -> float:
    """Return the multiply-accumulates per second of a large matrix product: an upper bound for networks.

    The product is computed directly and as a 1x1 convolution, which different libraries may implement; the faster
    counts. Each is the median of a few products of random matrices, because products of zeros can run faster.
    """
    side = _SIDES[device.type]
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(side, side, generator=generator).to(device, precision) for _ in range(2))
    images = first.view(side // _PIXELS, _PIXELS, 1, side).permute(0, 3, 1, 2)
    weights = second.view(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
    methods = (lambda: first @ second.T, lambda: functional.conv2d(images, weights))
    return side**3 / min(_seconds(method, device) for method in methods)


def _seconds(product: Callable[[], Tensor], device: torch.device) -> float:
    """Return the median over a few products, after one warm-up."""
    times = []
    for _ in range(1 + _PRODUCTS):
        start = time.perf_counter()
        product()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


class PeakMemory:
    """Peak memory since its creation: allocated on a CUDA device, or the resident set size (RSS) of a CPU process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            return_freed_memory()
            self._supported = False
            # Linux resets the process's peak RSS; other systems cannot.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
                self._supported = True

    def read(self) -> int | None:
        """Return the peak in bytes, or None where the system does not report it."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if self.device.type == "cpu" and self._supported:
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None
