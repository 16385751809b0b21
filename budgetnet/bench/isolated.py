"""Ways to train on a CPU in a process of their own, without this package's settings for CPUs.

The allocator of a process cannot be set back, so that a step with its default and one with it set cannot be measured in
one process. The process does a step when it is told to, and nothing in between.
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


class Way(NamedTuple):
    """One way to train in the other process."""

    step: Callable[[], None]
    """Does one training step."""
    measured_step: Callable[[], int | None]
    """Does one training step; returns the process's peak memory in it, in bytes; None if the system does not say."""


Make = Callable[[], AbstractContextManager[dict[str, Callable[[], None]]]]
"""Makes the steps of each way by its name, for a block."""


@contextmanager
def ways_apart(make: Make) -> Iterator[dict[str, Way]]:
    """Start a process with ``BUDGETNET_CPU_SETTINGS=off`` and torch's own number of threads; end it with the block.

    Args:
        make: called in that process; must be picklable.

    Raises:
        BudgetnetError: the process ended before the block.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make))
    process.start()
    theirs.close()
    try:
        names: list[str] = _answer(ours)

        def step(name: str) -> None:
            ours.send((name, False))
            _answer(ours)

        def measured_step(name: str) -> int | None:
            ours.send((name, True))
            peak: int | None = _answer(ours)
            return peak

        yield {name: Way(partial(step, name), partial(measured_step, name)) for name in names}
    finally:
        # It waits for the next name, and ends when there can be none.
        ours.close()
        process.join()


def _answer(line: Connection) -> Any:
    try:
        return line.recv()
    except (EOFError, ConnectionError):
        raise BudgetnetError("the process that trains without the settings for CPUs ended before its time") from None


def _serve(line: Connection, make: Make) -> None:
    """Make the ways and do steps until the other end is closed."""
    # An interrupt ends the process at the other end, which closes the line.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["BUDGETNET_CPU_SETTINGS"] = "off"
    with suppress(EOFError, ConnectionError), make() as steps:
        line.send(list(steps))
        while True:
            name, memory = line.recv()
            peak = PeakMemory(torch.device("cpu")) if memory else None
            steps[name]()
            line.send(peak.read() if peak else None)
