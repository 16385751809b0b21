"""Worker process on this machine: reads jobs from standard input and writes events to standard output.

One line of JSON each. It ends when it is told to stop, or when the pipe is closed because the process at the other end
was killed.
"""

from __future__ import annotations

import _thread
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from budgetnet.common.errors import BudgetnetError

STOP = ["stop"]
"""Message that ends a worker within its training step."""
_GRACE_SECONDS = 10.0
"""Seconds from SIGTERM to the end of a worker that is not told to stop."""


class _Link:
    """Messages to and from the engine."""

    def __init__(self, incoming: TextIO, outgoing: TextIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._messages: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self.working = True

    def send(self, event: str, *values: Any) -> None:
        """Write an event as one line."""
        self._outgoing.write(json.dumps([event, *values]) + "\n")
        self._outgoing.flush()

    def receive(self) -> list[Any] | None:
        """Wait for the next message; None to stop."""
        return self._messages.get()

    def answer(self) -> bool:
        """Wait for the answer to a report."""
        message = self.receive()
        if message is None:
            raise KeyboardInterrupt
        return bool(message[1])

    def listen(self) -> None:
        """Read messages until the pipe is closed, then exit."""
        for line in self._incoming:
            # The engine may end before it has sent all of a message.
            if not line.endswith("\n"):
                break
            message = json.loads(line)
            if message != STOP:
                self._messages.put(message)
                continue
            self._messages.put(None)
            if self.working:
                _thread.interrupt_main()
        os._exit(1)


def _end_soon(_number: int, _frame: FrameType | None) -> None:
    """Leave the search time to stop this worker: a scheduler sends SIGTERM to all processes of a job at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    timer = threading.Timer(_GRACE_SECONDS, signal.raise_signal, [signal.SIGTERM])
    timer.daemon = True
    timer.start()


def main() -> int:
    """Do the jobs; return the exit code."""
    signal.signal(signal.SIGTERM, _end_soon)
    # Started by a search that ignores interrupts, as in the background of a script, it must still obey a stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What anything else prints, also what is no Python, must not be taken for an event.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return 1  # The engine has ended.
    link = _Link(sys.stdin, events)
    try:
        try:
            # A stop that has already arrived interrupts the start of this thread.
            threading.Thread(target=link.listen, name="listen", daemon=True).start()
            _work(json.loads(line), link)
        finally:
            link.working = False
    except KeyboardInterrupt:
        return 130
    except BudgetnetError as error:
        link.send("failed", str(error), error.exit_code)
        return error.exit_code
    except OSError as error:
        link.send("failed", f"{error.filename or 'system'}: {error.strerror or error}", 1)
        return 1
    except Exception as error:
        traceback.print_exc()
        link.send("failed", f"{type(error).__name__}: {error}", 1)
        return 1
    return 0


def _work(setup: dict[str, Any], link: _Link) -> None:
    import torch

    from budgetnet.data.training_data import TrainingData
    from budgetnet.engines.worker_loop import execute
    from budgetnet.training.threads import use_threads

    if setup["threads"]:
        use_threads(setup["threads"], requested=setup["threads_requested"])
    data = TrainingData.open_shared(Path(setup["data"]), device=torch.device(setup["device"]))
    link.send("ready")
    while (message := link.receive()) is not None:
        execute(message[1], data, out=Path(setup["out"]), send=link.send, wait_for_answer=link.answer)


if __name__ == "__main__":
    exit_code = main()
    # At once: an interrupt that is still on its way would only print a traceback.
    os._exit(exit_code)
