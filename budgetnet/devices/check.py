"""Check of a device's file on its device: whether networks still take the time they took."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.devices.machine import obstacle, require_quiet
from budgetnet.devices.networks import time_networks
from budgetnet.devices.runtimes import runtime_of
from budgetnet.model.deployed.device_file import load_device

MOST_MOVED = 0.05
"""Share of its time by which an anchor may have moved."""
_ROUNDS = 5


class AnchorTime(NamedTuple):
    """An anchor's time when the file was made, and now."""

    network: str
    then: float
    """Seconds."""
    now: float

    @property
    def moved(self) -> float:
        """Change as a share of the time then."""
        return self.now / self.then - 1


def check(path: str | Path, *, even_if_busy: bool = False) -> list[AnchorTime]:
    """Time the anchors of a device's file again.

    Args:
        path: the file.
        even_if_busy: check also where other programs use the machine.

    Raises:
        InputError: the file is invalid, was made on another machine or with another version of the runtime, the machine
            is too busy, or an anchor has moved by more than 5 %.
    """
    device = load_device(path)
    if reason := obstacle(device):
        raise InputError("device_file", str(path), f"cannot be checked here: {reason}")
    settings = device.runtime
    runtime = runtime_of(settings.name, threads=settings.threads, batch=settings.batch)
    if not even_if_busy:
        require_quiet(runtime)
    seconds = time_networks(runtime, [anchor.spec for anchor in device.anchors], rounds=_ROUNDS)
    found = [
        AnchorTime(anchor.spec.label, anchor.microseconds * 1e-6, now)
        for anchor, now in zip(device.anchors, seconds, strict=True)
    ]
    worst = max(found, key=lambda each: abs(each.moved))
    if abs(worst.moved) > MOST_MOVED:
        direction = "more" if worst.moved > 0 else "less"
        rule = (
            f"{worst.network} takes {100 * abs(worst.moved):.1f} % {direction} time than it took, of which "
            f"{100 * MOST_MOVED:.0f} % are allowed; measure the device again"
        )
        raise InputError("device_file", str(path), rule)
    return found
