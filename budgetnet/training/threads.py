"""How many threads torch computes on: all cores, a given number, or what a few real steps show to be the fastest.

Two threads of one process wait for each other many times a step. Where another process takes one of their cores, or
where cores share a matrix unit, one thread can be the faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch

from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import InputError
from budgetnet.data.batches import Feed
from budgetnet.data.training_data import TrainingData
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.store import RunFolder
from budgetnet.training.devices import choose_precision, threads_set_to
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS, Execution, Learner

Wanted = int | Literal["auto"]
"""A number of threads, or that it be measured."""

_ROUNDS = 3
_SECONDS = 6.0
"""Seconds after which no further round of steps is begun."""


class FirstRun(NamedTuple):
    """The run that a command trains first, whose steps are measured."""

    spec: ModelSpec
    recipe: Recipe
    data: TrainingData
    folder: RunFolder | None = None
    """Its folder, if it may be a run that is resumed."""


class ThreadTimes(NamedTuple):
    """Seconds of a training step, the least of a few, by the number of threads."""

    seconds: dict[int, float]

    @property
    def fastest(self) -> int:
        """The number of threads whose step took the least time."""
        return min(self.seconds, key=self.seconds.__getitem__)

    def __str__(self) -> str:
        each = (f"{1000 * seconds:,.1f} ms with {count}" for count, seconds in self.seconds.items())
        return f"threads: {self.fastest}, the fastest for this network: a step takes {', '.join(each)}"


def set_threads(wanted: Wanted, first: Callable[[], FirstRun | None], *, processes: int = 1) -> str:
    """Set torch's number of threads for this process.

    Args:
        wanted: how many, or ``"auto"``: measured on real steps with one thread and with all.
        first: gives the run to measure; None if nothing is left to train on the CPU. A run that is resumed keeps its
            threads.
        processes: number of processes that share the cores.

    Returns:
        One line that says how many threads were set, and why.

    Raises:
        InputError: more threads than there are cores for a process, or than ``OMP_NUM_THREADS`` allows.
    """
    most = most_threads(processes)
    if wanted != "auto" and wanted > most:
        rule = f"must be at most {most}: the cores of this process, or what OMP_NUM_THREADS allows"
        raise InputError("threads", wanted, rule + (f", shared by {processes} processes" if processes > 1 else ""))
    run = first()
    recorded = run.folder.recorded_threads() if run and run.folder else None
    if recorded is not None:
        torch.set_num_threads(min(recorded, most))
        return f"threads: {min(recorded, most)}, as in the first epochs of the run that is resumed"
    if wanted != "auto":
        torch.set_num_threads(wanted)
        return f"threads: {wanted}, as asked for"
    if run is None:
        return f"threads: {torch.get_num_threads()}, not measured, as nothing is left to train on the CPU"
    if most == 1:
        torch.set_num_threads(1)
        return "threads: 1, the only number possible"
    times = measure_threads(steps_of(run), most=most)
    torch.set_num_threads(times.fastest)
    return str(times)


def most_threads(processes: int = 1) -> int:
    """Return the largest number of threads for each process: by cores, and as torch is set."""
    return max(1, min(torch.get_num_threads(), available_cores()) // processes)


def measure_threads(step: Callable[[], None], *, most: int) -> ThreadTimes:
    """Time a step with one thread and with the most, in turn; leaves the number of threads as it was.

    Args:
        step: does one training step.
        most: the larger number of threads.
    """
    times: dict[int, list[float]] = {1: [], most: []}
    began = time.perf_counter()
    for number in range(1 + _ROUNDS):
        if number > 1 and time.perf_counter() - began > _SECONDS:
            break
        for count, found in times.items():
            with threads_set_to(count):
                start = time.perf_counter()
                step()
                # The first step of each loads and prepares kernels.
                if number:
                    found.append(time.perf_counter() - start)
    return ThreadTimes({count: min(found) for count, found in times.items()})


def steps_of(run: FirstRun) -> Callable[[], None]:
    """Return a function that does one training step of a copy of the run's network; the run is left alone."""
    data, recipe = run.data, run.recipe
    device = data.train.images.device
    feed = Feed(data.train, recipe.augmentation, batch_size=recipe.batch_size, seed=0)
    network = initialise(data.adapt(run.spec), 0).to(device).to(memory_format=torch.channels_last)
    precision = PRECISIONS[choose_precision(recipe.precision, device)]
    learner = Learner(network, feed, recipe, precision=precision, execution=Execution(record=False))

    def steps() -> Iterator[None]:
        while True:
            learner.begin(1, rates=[recipe.learning_rate] * len(feed.sizes))
            for size in feed.sizes:
                learner.learn(size)
                yield

    endless = steps()

    def step() -> None:
        # Dropout must not draw from the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            next(endless)

    return step
