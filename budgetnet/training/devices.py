"""Devices: choice of device, precision and threads, and a description of versions and hardware."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distribution
from typing import Any

import torch

from budgetnet.common import cpu
from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import InputError
from budgetnet.version import __version__

_PACKAGES = ("torch", "torchvision", "numpy", "optuna", "pydantic", "safetensors", "scikit-learn")
DEVICES = ("auto", "cuda", "mps", "cpu")


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` chooses the fastest one available.

    Raises:
        InputError: the name is unknown, or the device is not available.
    """
    cpu.prepare()
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in available.items() if found))
    if name not in DEVICES:
        raise InputError("device", name, f"must be one of {', '.join(DEVICES)}")
    if not available[name]:
        raise InputError("device", name, "is not available on this machine; use auto")
    return torch.device(name)


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the precision for a recipe's setting on a device: ``float32`` or ``bfloat16``.

    Raises:
        InputError: the device does not support the precision.
    """
    if wanted == "bfloat16" and device.type == "mps":
        raise InputError("precision", wanted, "is not supported on mps; use auto")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        native = device.type == "cpu" and cpu.has_bfloat16()
    return "bfloat16" if native else "float32"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads within a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _versions() -> dict[str, str]:
    """Return the versions of the packages that affect results; cached, as each lookup takes milliseconds."""
    return {name: distribution(name).version for name in _PACKAGES}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return versions, operating system and hardware as plain data."""
    environment: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"budgetnet": __version__, **_versions()},
        "processor": cpu.name(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        environment["gpu"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return environment
