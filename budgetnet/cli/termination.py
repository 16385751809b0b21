"""Interrupts of a command: Ctrl-C, and SIGTERM as a job scheduler sends it before it kills."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from budgetnet.common.errors import BudgetnetError, caused_by_interrupt

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell reports it of a program that does not handle the signal."""
TERMINATED = 143
"""Exit code after SIGTERM, for the same reason."""


class InterruptedCommandError(BudgetnetError):
    """A command was interrupted; the message says what is kept."""

    exit_code = INTERRUPTED


@contextmanager
def interruption(note: str = "progress is saved, run the same command to resume") -> Iterator[None]:
    """Add to the message of a command that is interrupted in this block what is kept, and how to go on.

    Raises:
        InterruptedCommandError: the command was interrupted.
    """
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not caused_by_interrupt(error):
            raise
        raise InterruptedCommandError(f"interrupted: {note}") from None


def forget_interrupt() -> None:
    """Let the process end with its own exit code after an interrupt that was handled.

    Where an interrupt ends code that is executed from text, as the standard library does for named tuples and data
    classes, CPython notes it and ends the process by SIGINT, even if a caller handles the exception. Executing any
    text resets the note (``run_eval_code_obj`` in CPython's pythonrun.c).
    """
    exec("")  # noqa: S102 - a constant


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
