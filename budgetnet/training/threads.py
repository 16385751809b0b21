"""Number of torch threads: one per free core, a given number, or the fastest as measured on a few training steps.

The threads of a process synchronise many times per step. If another process uses one of their cores, or if cores share
a matrix unit, one thread can be faster than two.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from budgetnet.common.cpu import available_cores, free_cores
from budgetnet.common.errors import InputError
from budgetnet.data.batches import BatchLoader
from budgetnet.data.training_data import TrainingData
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.store import RunFolder
from budgetnet.training.devices import choose_precision, torch_threads
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS, Execution, TrainingStep

_log = logging.getLogger(__name__)

ThreadCount = int | Literal["auto"]
"""A number of threads, or ``"auto"`` to measure it."""

_ROUNDS = 3
_SECONDS = 6.0
"""Time limit in seconds after which no further round of steps starts."""


@dataclass
class _Choice:
    """The number of threads that this module set last; torch has one for the process."""

    before: int = 0
    """Number before it was set."""
    count: int | None = None
    """The number; None if none was set."""
    requested: bool = False
    """Whether the user gave it."""


_choice = _Choice()


class FirstRun(NamedTuple):
    """First run of a command, on which steps are measured."""

    spec: ModelSpec
    recipe: Recipe
    data: TrainingData
    folder: RunFolder | None = None
    """Run folder, if the run may be a resumed one."""


class ThreadTimes(NamedTuple):
    """Duration of a training step in seconds, the minimum of a few, by number of threads."""

    seconds: dict[int, float]

    @property
    def fastest(self) -> int:
        """Number of threads with the shortest step."""
        return min(self.seconds, key=self.seconds.__getitem__)

    def __str__(self) -> str:
        each = (f"{1000 * seconds:,.1f} ms with {count}" for count, seconds in self.seconds.items())
        return f"threads: {self.fastest}, the fastest for this network: a step takes {', '.join(each)}"


def set_threads(wanted: ThreadCount | None, first: Callable[[], FirstRun | None], *, processes: int = 1) -> str:
    """Set torch's number of threads for this process, in place of what an earlier call set.

    Args:
        wanted: number of threads, ``"auto"`` to measure training steps with one thread and with all, or None for the
            number before the first call.
        first: returns the run to measure, or None if no run is left to train on the CPU. With ``"auto"``, a resumed run
            keeps its number of threads.
        processes: number of processes that share the cores.

    Returns:
        One line that reports the number of threads and the reason; empty for None.

    Raises:
        InputError: more threads than the process has cores, or than ``OMP_NUM_THREADS`` allows.
    """
    reset_threads()
    if wanted is None:
        return ""
    most = max_threads(processes)
    if wanted != "auto" and wanted > most:
        rule = f"must be at most {most}: the cores of this process, or OMP_NUM_THREADS"
        raise InputError("threads", wanted, rule + (f", shared by {processes} processes" if processes > 1 else ""))
    run = first()
    recorded = run.folder.recorded_threads() if run and run.folder else None
    if wanted != "auto":
        use_threads(wanted, requested=True)
        differs = recorded not in (None, wanted)
        note = f"; the run was trained with {recorded} so far, and rounding depends on the number" if differs else ""
        return f"threads: {wanted}, as requested{note}"
    if recorded is not None:
        use_threads(min(recorded, most))
        return f"threads: {min(recorded, most)}, as in earlier epochs of the resumed run"
    if run is None:
        return f"threads: {torch.get_num_threads()}, not measured: no run is left to train on the CPU"
    if most == 1:
        use_threads(1)
        return "threads: 1, the only possible number"
    times = measure_threads(training_step_of(run), most=most)
    use_threads(times.fastest)
    return str(times)


def use_threads(count: int, *, requested: bool = False) -> None:
    """Set torch's number of threads.

    Args:
        count: number of threads.
        requested: whether the user gave the number, so that runs use it as it is.
    """
    _choice.before, _choice.count, _choice.requested = torch.get_num_threads(), count, requested
    torch.set_num_threads(count)


def reset_threads() -> None:
    """Set torch's number of threads to that before `use_threads`, unless others have changed it since."""
    if torch.get_num_threads() == _choice.count:
        torch.set_num_threads(_choice.before)
    _choice.count, _choice.requested = None, False


def are_threads_requested() -> bool:
    """Return whether the user gave the current number of threads."""
    return _choice.requested and torch.get_num_threads() == _choice.count


def run_threads(folder: RunFolder, device: torch.device) -> int:
    """Return the number of threads with which to train a run, resumed or not: the number requested, if any.

    Otherwise torch's current setting, or that of a resumed run's earlier epochs if it is lower: results depend on it
    in their last bits, and processes that share cores would wait for each other. On the CPU, no more than the cores
    that other programs leave free, unless ``OMP_NUM_THREADS`` is set: threads that wait for a core at the end of every
    operation can make a step hundreds of times slower.
    """
    current = torch.get_num_threads()
    if are_threads_requested():
        return current
    count = min(folder.recorded_threads() or current, current)
    if count == 1 or device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return count
    free = free_cores()
    if free < count:
        _warn_of_busy_cores(free, count)
    return min(count, free)


@functools.cache
def _warn_of_busy_cores(free: int, count: int) -> None:
    """Say once in a process, not for every run, that other programs keep cores busy."""
    _log.warning("threads: %d of %d: other programs keep cores busy (all: --threads %d)", free, count, count)


def max_threads(processes: int = 1) -> int:
    """Return the maximum number of threads of each process, by available cores and torch's setting."""
    return max(1, min(torch.get_num_threads(), available_cores()) // processes)


def measure_threads(step: Callable[[], None], *, most: int) -> ThreadTimes:
    """Measure a step alternately with one thread and with the maximum; the number of threads is restored.

    Args:
        step: runs one training step.
        most: maximum number of threads.
    """
    times: dict[int, list[float]] = {1: [], most: []}
    began = time.perf_counter()
    for number in range(1 + _ROUNDS):
        if number > 1 and time.perf_counter() - began > _SECONDS:
            break
        for count, found in times.items():
            with torch_threads(count):
                start = time.perf_counter()
                step()
                # The first step with each number of threads is a warm-up.
                if number:
                    found.append(time.perf_counter() - start)
    return ThreadTimes({count: min(found) for count, found in times.items()})


def training_step_of(run: FirstRun) -> Callable[[], None]:
    """Return a function that runs one training step on a copy of the run's network."""
    data, recipe = run.data, run.recipe
    device = data.train.images.device
    loader = BatchLoader(data.train, recipe.augmentation, batch_size=recipe.batch_size, seed=0)
    network = initialise(data.adapt(run.spec), 0).to(device).to(memory_format=torch.channels_last)
    precision = PRECISIONS[choose_precision(recipe.precision, device)]
    training_step = TrainingStep(network, loader, recipe, precision=precision, execution=Execution(record=False))

    def steps() -> Iterator[None]:
        while True:
            training_step.begin(1, rates=[recipe.learning_rate] * len(loader.sizes))
            for size in loader.sizes:
                training_step.train_batch(size)
                yield

    endless = steps()

    def step() -> None:
        # Dropout must not advance the caller's random generator.
        with torch.random.fork_rng(devices=[]):
            next(endless)

    return step
