"""What training several networks at once gains: images a second of so many processes on one machine or one device."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import torch

from budgetnet.bench.hardware import PeakMemory, synchronise
from budgetnet.bench.scaling import network_of
from budgetnet.bench.variants import Setting, learning
from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import BudgetnetError, InputError, is_out_of_memory
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision, describe_environment
from budgetnet.training.step import Execution

IMAGE_SIZE = 32
"""Side of the square images, in pixels."""
_READY, _OUT_OF_MEMORY = "ready", "out of memory"
"""What a process tells besides what it trained."""


class Trained(NamedTuple):
    """What one process did from the common start on."""

    images: int
    seconds: float
    peak_memory: int | None
    """Bytes: allocated on the device, without its driver's own, or on a CPU resident; None where nobody tells."""

    @property
    def images_per_second(self) -> float:
        """Images it trained on, a second."""
        return self.images / self.seconds


class Together(NamedTuple):
    """Processes that trained the same network at the same time, each its own copy."""

    spec: ModelSpec
    threads: int | None
    """Threads of each process on a CPU; None on a device, where the processor only hands on work."""
    processes: tuple[Trained, ...]

    @property
    def images_per_second(self) -> float:
        """Sum over the processes."""
        return sum(process.images_per_second for process in self.processes)

    @property
    def peak_memory(self) -> int | None:
        """Bytes of the process that took the most; None where nobody tells."""
        return max((process.peak_memory for process in self.processes if process.peak_memory is not None), default=None)


class WorkersBenchmark(NamedTuple):
    """What was trained, by how many processes, and how fast."""

    environment: dict[str, Any]
    batch_size: int
    precision: str
    runs: list[Together]
    """For each network, one process and then more."""

    def ratio(self, run: Together) -> float:
        """How many times the images a second of one process alone, for the same network."""
        alone = next(other for other in self.runs if other.spec == run.spec and len(other.processes) == 1)
        return run.images_per_second / alone.images_per_second

    def to_mapping(self) -> dict[str, Any]:
        """The benchmark as plain data; times in seconds, memory in bytes."""
        rows = []
        for run in self.runs:
            speeds = [process.images_per_second for process in run.processes]
            rows.append(
                {
                    "params": run.spec.params,
                    "macs": run.spec.macs,
                    "workers": len(run.processes),
                    "threads": run.threads,
                    "images_per_second": run.images_per_second,
                    "ratio": self.ratio(run),
                    "slowest": min(speeds),
                    "fastest": max(speeds),
                    "peak_memory": run.peak_memory,
                    "processes": [process._asdict() for process in run.processes],
                }
            )
        facts = {"batch_size": self.batch_size, "image_size": IMAGE_SIZE, "precision": self.precision}
        return {"benchmark": "workers", "environment": self.environment, **facts, "rows": rows}


class _Job(NamedTuple):
    """What each process is to do."""

    setting: Setting
    precision: str
    threads: int | None
    seconds: float


class _Worker(NamedTuple):
    """A process, and the line to it."""

    process: SpawnProcess
    line: Connection


def run(
    *,
    parameters: Sequence[int],
    workers: Sequence[int],
    device: torch.device,
    seconds: float,
    batch_size: int | None = None,
    progress: Callable[[str], None],
) -> WorkersBenchmark:
    """Trains networks of several sizes, each in one process and then in several at once, on images of noise.

    On a CPU its cores are shared out among the processes, as the workers of a search would share them.

    Args:
        parameters: sizes to measure at; of each, the nearest network of a family that differs in width.
        workers: numbers of processes; one alone is always measured, as the others are compared with it.
        device: where all of them train.
        seconds: how long each process trains behind the common start; one step at least.
        batch_size: images in a step; 128 if left out, or 32 on a CPU.
        progress: is told what is being done.

    Raises:
        InputError: the family has no network of about such a size.
        BudgetnetError: a process ended before its time, or the memory does not hold so many.
    """
    smallest, largest = (network_of(params, image_size=IMAGE_SIZE).params for params in (1, 10**9))
    for params in parameters:
        if not smallest <= params <= largest:
            raise InputError("params", params, f"must be from {smallest:,} to {largest:,}")
    batch_size = batch_size or (32 if device.type == "cpu" else Recipe().batch_size)
    precision = choose_precision("auto", device)
    counts = sorted({1, *workers})
    runs = []
    for params in sorted(set(parameters)):
        spec = network_of(params, image_size=IMAGE_SIZE)
        for count in counts:
            progress(f"{spec.params:,} parameters in {count} process{'es' if count > 1 else ''}")
            threads = max(1, available_cores() // count) if device.type == "cpu" else None
            job = _Job(Setting(spec, Recipe(), batch_size, device), precision, threads, seconds)
            runs.append(Together(spec, threads, _train_together(job, count)))
    return WorkersBenchmark(describe_environment(device), batch_size, precision, runs)


def _train_together(job: _Job, count: int) -> tuple[Trained, ...]:
    """Starts processes, lets all begin when the last one has warmed up, and hears what they did.

    Raises:
        BudgetnetError: one ended before its time, or found no memory.
    """
    with _started(job, count) as workers:
        _answers(workers, job)
        for worker in workers:
            # One that has just ended is missed when it is to answer.
            with suppress(ConnectionError):
                worker.line.send(_READY)
        return tuple(_answers(workers, job))


@contextmanager
def _started(job: _Job, count: int) -> Iterator[list[_Worker]]:
    """Processes that work on a job, and that are gone when the block ends, however it does."""
    context = get_context("spawn")
    workers: list[_Worker] = []
    try:
        with _deaf(), _inherited(job.threads):
            for _ in range(count):
                line, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, job), daemon=True)
                process.start()
                # The other end is then the process's alone, so that its death ends the line.
                theirs.close()
                workers.append(_Worker(process, line))
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.process.close()
            worker.line.close()


@contextmanager
def _inherited(threads: int | None) -> Iterator[None]:
    """What processes shall find when they start: the number of threads, which libraries read when they are loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
        else:
            os.environ.pop("OMP_NUM_THREADS", None)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started here never hear the terminal's Ctrl-C, or each would print where it was.

    It is answered once, by ending them; one that comes just now waits until they are started. Windows has no such ears.
    """
    if sys.platform == "win32":
        yield
        return
    # A helper of Python's own, which would open the ears again if it came up in between.
    resource_tracker.ensure_running()
    caught: list[int] = []
    # Blocked for this thread, which processes inherit; another thread, such as one that draws a bar, may hear it.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number)) if main else None
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        if main:
            signal.signal(signal.SIGINT, before)
    if caught and before is not signal.SIG_IGN:
        raise KeyboardInterrupt


def _answers(workers: Sequence[_Worker], job: _Job) -> list[Any]:
    """The next answer of each process, in their order, as soon as all are there or one cannot come any more.

    Raises:
        BudgetnetError: a process ended, or found no memory.
    """
    answers: dict[int, Any] = {}
    waiting = {worker.line: number for number, worker in enumerate(workers)}
    while waiting:
        ready = connection.wait(list(waiting))
        for line in [line for line in waiting if line in ready]:
            number = waiting.pop(line)
            answers[number] = _answer(workers[number], len(workers), job)
    return [answers[number] for number in range(len(workers))]


def _answer(worker: _Worker, count: int, job: _Job) -> Any:
    what = f"{count} at once, of {job.setting.spec.params:,} parameters each"
    try:
        answer = worker.line.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"by signal {-code}; there may be too little memory" if code < 0 else f"with exit code {code}"
        raise BudgetnetError(f"a process that trains ({what}) was ended before its time, {how}") from None
    if answer == _OUT_OF_MEMORY:
        raise BudgetnetError(f"the memory of this machine or device does not hold the networks in training: {what}")
    return answer


def _work(line: Connection, job: _Job) -> None:
    """What a process does: it warms up, says so, waits for the others, trains, and tells what it did."""
    try:
        line.send(_train(line, job))
    except (EOFError, ConnectionError):
        # Whoever asked is gone.
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        line.send(_OUT_OF_MEMORY)


def _train(line: Connection, job: _Job) -> Trained:
    setting, device = job.setting, job.setting.device
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    step = learning(setting, precision=job.precision, execution=Execution())
    memory = PeakMemory(device)
    # On a device the first steps choose algorithms and are recorded, and many are handed on before one waits for them.
    warm_up, stride = (2, 1) if device.type == "cpu" else (10, 20)
    for _ in range(warm_up):
        step()
    synchronise(device)
    line.send(_READY)
    line.recv()
    steps, taken, began = 0, 0.0, time.perf_counter()
    while taken < job.seconds:
        for _ in range(stride):
            step()
        synchronise(device)
        steps += stride
        taken = time.perf_counter() - began
    return Trained(steps * setting.batch_size, taken, memory.read())
