"""Ctrl-C during training, which Python loses now and then."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Context manager in which a Ctrl-C ends the training, if not at once then at the next step.

    Python prints an exception that a destructor or a weak reference's callback raises and goes on; that is also what
    becomes of a KeyboardInterrupt that happens to fall there.
    """

    def __init__(self) -> None:
        self._pending = self._installed = False

    def __enter__(self) -> Self:
        # Elsewhere no handler can be set, and another one than Python's own is left in place.
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # Compiled code may have turned the interrupt into another exception, or Python printed it after the last step.
        if self._pending and (error is None or isinstance(error, Exception)):
            raise KeyboardInterrupt from error

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._pending = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was one that did not end the training."""
        if self._pending:
            raise KeyboardInterrupt
