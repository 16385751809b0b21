"""Times that an interrupted measurement has taken, in a file beside the one it makes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from budgetnet.common.files import write_text
from budgetnet.model.deployed.calls import Call, Kernel

_EVERY = 5.0
"""Seconds between two writes."""


class Partial:
    """Samples of calls and networks that are kept until the measurement is complete."""

    def __init__(
        self, output: Path, settings: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read what an earlier measurement with the same settings has left.

        Args:
            output: the file that is made at the end.
            settings: what the samples depend on.
            clock: a monotonic clock, in seconds.
        """
        self.path = output.with_name(f".{output.name}.measured.json")
        self._key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self._clock = clock
        self.calls: dict[Call, list[float]] = {}
        self.networks: list[float] = []
        """Seconds of the first networks."""
        self._read()
        self.resumed = bool(self.calls)
        """Whether there were samples."""
        self._written = clock()

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["key"] != self._key:
                return
            for name, inputs, outputs, times in content["calls"]:
                self.calls[Call(Kernel.parse(name), inputs, outputs)] = times
            self.networks = content["networks"]
        except (OSError, ValueError, LookupError, TypeError):
            # Without it, or with one that is damaged, all is measured.
            self.calls, self.networks = {}, []

    def save(self, *, now: bool = False) -> None:
        """Write the samples, unless that was done a moment ago.

        Args:
            now: write in any case.
        """
        if not now and self._clock() - self._written < _EVERY:
            return
        calls = [
            [str(call.kernel), call.inputs, call.outputs, [round(each, 9) for each in times]]
            for call, times in self.calls.items()
        ]
        write_text(self.path, json.dumps({"key": self._key, "calls": calls, "networks": self.networks}))
        self._written = self._clock()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
