"""SIGTERM during a command, as a job scheduler sends it before it kills."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Termination:
    """SIGTERM, which interrupts a command as Ctrl-C does while it is handled."""

    def __init__(self) -> None:
        self.received = False
        """Whether the signal came."""

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signal in this block, unless the process ignores it or has a handler of its own."""
        # Handlers can be set in the main thread only.
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            yield
            return
        signal.signal(signal.SIGTERM, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        # During training, the handler of Ctrl-C also sees to it that the interrupt is not lost.
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt
