"""Training steps in a separate process, without budgetnet's CPU settings.

The memory allocator of a process cannot be reset, so steps with and without the CPU settings cannot be measured in one
process. The separate process runs one step per request and is idle otherwise.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from budgetnet.bench.hardware import PeakMemory
from budgetnet.common.errors import BudgetnetError


class RemoteStep(NamedTuple):
    """A training step in the separate process."""

    step: Callable[[], None]
    """Runs one step."""
    measured_step: Callable[[], int | None]
    """Runs one step and returns the peak memory of the process, in bytes; None if the system does not report it."""


MakeSteps = Callable[[], AbstractContextManager[dict[str, Callable[[], None]]]]
"""Context manager that creates training steps, by name."""


@contextmanager
def separate_process(make_steps: MakeSteps) -> Iterator[dict[str, RemoteStep]]:
    """Run training steps in a process with ``BUDGETNET_CPU_SETTINGS=off`` and torch's default number of threads.

    Args:
        make_steps: called in that process; must be picklable.

    Raises:
        BudgetnetError: the process exits early.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make_steps))
    process.start()
    theirs.close()

    def request(name: str, *, memory: bool) -> Any:
        ours.send((name, memory))
        return _receive(ours)

    try:
        names: list[str] = _receive(ours)
        yield {
            name: RemoteStep(partial(request, name, memory=False), partial(request, name, memory=True))
            for name in names
        }
    finally:
        # The process exits when its pipe is closed.
        ours.close()
        process.join()


def _receive(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        raise BudgetnetError("the process that trains without the CPU settings exited early") from None


def _serve(pipe: Connection, make_steps: MakeSteps) -> None:
    """Run requested steps until the other end of the pipe is closed."""
    # Ctrl-C ends the parent process, which closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["BUDGETNET_CPU_SETTINGS"] = "off"
    with suppress(EOFError, ConnectionError), make_steps() as steps:
        pipe.send(list(steps))
        while True:
            name, memory = pipe.recv()
            peak = PeakMemory(torch.device("cpu")) if memory else None
            steps[name]()
            pipe.send(peak.read() if peak else None)
