"""Times of several tasks side by side: in turn, so that whatever else the machine does meets them all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

_SAMPLE_SECONDS = 0.002
"""A sample is at least this long: many times what a clock resolves, and short beside a scheduler's turns."""
_LEAST_ROUNDS = 3
_MOST_ROUNDS = 1000


class Task(NamedTuple):
    """Something to be timed."""

    call: Callable[..., object]
    """What is timed; takes what `prepare` gives, or nothing."""
    prepare: Callable[[], object] | None = None
    """Makes, untimed, a fresh argument for every call. Without it a short call is repeated within a sample."""
    units: int = 1
    """Things that one call does, such as candidates that it counts; times are for one of them."""


class Measurement(NamedTuple):
    """Times of one task, in seconds for one unit, over all samples."""

    median: float
    minimum: float
    maximum: float
    samples: int
    """Number of samples, one a round."""
    calls: int
    """Calls in a sample, whose mean is the sample's time."""


class Goal(NamedTuple):
    """Something that a benchmark is to show."""

    goal: str
    unit: str
    """``times``, ``percent``, ``seconds`` or ``bytes``."""
    measured: float
    limit: float
    met: bool


def measure(
    tasks: Mapping[str, Task], *, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Measurement]:
    """Times tasks in turn: one sample of each, again and again, after a warm-up.

    Args:
        tasks: what to time, by name.
        seconds: when to begin no further round, counted from the first; three rounds are made however long they take.
        clock: gives seconds that only ever grow.
    """
    calls = {name: _calibrate(task, clock) for name, task in tasks.items()}
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    start = clock()
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and clock() - start >= seconds:
            break
        for name, task in tasks.items():
            samples[name].append(_sample(task, calls[name], clock) / calls[name] / task.units)
    return {
        name: Measurement(statistics.median(times), min(times), max(times), len(times), calls[name])
        for name, times in samples.items()
    }


def ratios(measurements: Mapping[str, Measurement], *, to: str) -> dict[str, float]:
    """How many times the median of one task each other task's median is."""
    return {name: other.median / measurements[to].median for name, other in measurements.items() if name != to}


def _calibrate(task: Task, clock: Callable[[], float]) -> int:
    """Warms a task up, and finds how many calls make a sample long enough."""
    calls = 1
    # The first call may load and set up what later ones find.
    _sample(task, calls, clock)
    while task.prepare is None and _sample(task, calls, clock) < _SAMPLE_SECONDS:
        calls *= 2
    return calls


def _sample(task: Task, calls: int, clock: Callable[[], float]) -> float:
    """Seconds that so many calls took together."""
    arguments = () if task.prepare is None else (task.prepare(),)
    call = task.call
    collecting = gc.isenabled()
    # A collection would be charged to whichever task happens to run.
    gc.disable()
    try:
        start = clock()
        for _ in range(calls):
            call(*arguments)
        return clock() - start
    finally:
        if collecting:
            gc.enable()
