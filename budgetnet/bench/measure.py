"""Timing of several tasks in alternating rounds, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

_SAMPLE_SECONDS = 0.002
"""Least duration of a sample: many times the clock's resolution, but shorter than a scheduler's time slice."""
_MIN_ROUNDS = 3
_MAX_ROUNDS = 1000


class Task(NamedTuple):
    """A function to time."""

    call: Callable[..., object]
    """The timed function; takes the result of `prepare`, or nothing."""
    prepare: Callable[[], object] | None = None
    """Creates a new argument for each call, untimed. Without it, short calls are repeated within a sample."""
    units: int = 1
    """Number of items that one call processes; times are per item."""


class Measurement(NamedTuple):
    """Times of one task, in seconds per item, over all samples."""

    median: float
    minimum: float
    maximum: float
    samples: int
    """Number of samples, one per round."""
    calls: int
    """Calls per sample; a sample's time is their mean."""


class Spread(NamedTuple):
    """Median, minimum and maximum of several times, in seconds."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Self:
        """Summarise times."""
        return cls(statistics.median(times), min(times), max(times))


class Goal(NamedTuple):
    """A target value of a benchmark."""

    goal: str
    unit: str
    """``times``, ``percent``, ``seconds``, ``bytes`` or ``networks``."""
    measured: float
    limit: float
    met: bool

    @classmethod
    def at_least(cls, goal: str, unit: str, measured: float, limit: float) -> Self:
        """Create a goal that larger values meet."""
        return cls(goal, unit, measured, limit, measured >= limit)

    @classmethod
    def at_most(cls, goal: str, unit: str, measured: float, limit: float) -> Self:
        """Create a goal that smaller values meet."""
        return cls(goal, unit, measured, limit, measured <= limit)


def measure(
    tasks: Mapping[str, Task], *, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Measurement]:
    """Time tasks after a warm-up, one sample of each per round.

    Args:
        tasks: what to time, by name.
        seconds: no round starts later than this after the first; at least three rounds are measured.
        clock: a monotonic clock, in seconds.
    """
    calls = {name: _calibrate(task, clock) for name, task in tasks.items()}
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    start = clock()
    for number in range(_MAX_ROUNDS):
        if number >= _MIN_ROUNDS and clock() - start >= seconds:
            break
        for name, task in tasks.items():
            samples[name].append(_sample(task, calls[name], clock) / calls[name] / task.units)
    return {name: Measurement(*Spread.of(times), len(times), calls[name]) for name, times in samples.items()}


def ratios(measurements: Mapping[str, Measurement], *, to: str) -> dict[str, float]:
    """Return the median of each other task divided by the median of the task `to`."""
    return {name: other.median / measurements[to].median for name, other in measurements.items() if name != to}


def _calibrate(task: Task, clock: Callable[[], float]) -> int:
    """Warm a task up and return the number of calls that make a sample long enough."""
    calls = 1
    # The first call may load libraries and fill caches.
    _sample(task, calls, clock)
    while task.prepare is None and _sample(task, calls, clock) < _SAMPLE_SECONDS:
        calls *= 2
    return calls


def _sample(task: Task, calls: int, clock: Callable[[], float]) -> float:
    """Return the seconds that a number of calls take together."""
    arguments = () if task.prepare is None else (task.prepare(),)
    call = task.call
    collecting = gc.isenabled()
    # Otherwise a garbage collection would be counted as part of an arbitrary task.
    gc.disable()
    try:
        start = clock()
        for _ in range(calls):
            call(*arguments)
        return clock() - start
    finally:
        if collecting:
            gc.enable()
