"""Benchmark of training in parallel: images per second of several processes on one machine or device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple, cast

import torch

from budgetnet.bench.hardware import PeakMemory, synchronise
from budgetnet.bench.interpreter import child_environment
from budgetnet.bench.scaling import network_of, require_params
from budgetnet.bench.variants import Setting, training_step
from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import BudgetnetError, is_out_of_memory
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision, describe_environment
from budgetnet.training.step import Execution

IMAGE_SIZE = 32
"""Side of the square images, in pixels."""
_READY, _OUT_OF_MEMORY = "ready", "out of memory"
"""Messages of a process before and in place of its result."""


class ProcessResult(NamedTuple):
    """Training of one process after the common start."""

    images: int
    seconds: float
    peak_memory: int | None
    """Bytes: allocated by torch on the device, or the RSS on a CPU; None where the system does not report it."""

    @property
    def images_per_second(self) -> float:
        """Images per second."""
        return self.images / self.seconds


class ParallelRun(NamedTuple):
    """Processes that train copies of the same network at the same time."""

    spec: ModelSpec
    threads: int | None
    """Threads per process on a CPU; None on a GPU."""
    processes: tuple[ProcessResult, ...]

    @property
    def images_per_second(self) -> float:
        """Sum over the processes."""
        return sum(process.images_per_second for process in self.processes)

    @property
    def peak_memory(self) -> int | None:
        """Largest peak memory of a process, in bytes; None where the system does not report it."""
        return max((process.peak_memory for process in self.processes if process.peak_memory is not None), default=None)


class WorkersBenchmark(NamedTuple):
    """Speed of each network, by number of processes."""

    environment: dict[str, Any]
    batch_size: int
    precision: str
    runs: list[ParallelRun]
    """Sorted by network; one process first, then more."""

    def ratio(self, run: ParallelRun) -> float:
        """Images per second, relative to one process with the same network."""
        alone = next(other for other in self.runs if other.spec == run.spec and len(other.processes) == 1)
        return run.images_per_second / alone.images_per_second

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds, memory in bytes."""
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


def run(
    *,
    parameters: Sequence[int],
    workers: Sequence[int],
    device: torch.device,
    seconds: float,
    batch_size: int | None = None,
    progress: Callable[[str], None],
) -> WorkersBenchmark:
    """Train networks of several sizes on random images, each in one process and then in several at once.

    On a CPU the cores are divided among the processes, as `budgetnet search --workers` does.

    Args:
        parameters: sizes; the closest network of a family that varies in width is used.
        workers: numbers of processes; one process is always measured, as the baseline.
        device: where all of them train.
        seconds: how long each process trains after the common start; at least one step.
        batch_size: images per step; default: 128, or 32 on a CPU.
        progress: called with a description of each step.

    Raises:
        InputError: the family has no network of about this size.
        BudgetnetError: a process exits early or runs out of memory.
    """
    require_params(parameters, image_size=IMAGE_SIZE)
    batch_size = batch_size or (32 if device.type == "cpu" else Recipe().batch_size)
    precision = choose_precision("auto", device)
    counts = sorted({1, *workers})
    runs = []
    for params in sorted(set(parameters)):
        spec = network_of(params, image_size=IMAGE_SIZE)
        for count in counts:
            progress(f"{spec.params:,} parameters, {count} process{'es' if count > 1 else ''}")
            threads = max(1, available_cores() // count) if device.type == "cpu" else None
            job = {
                "spec": spec.to_mapping(),
                "batch_size": batch_size,
                "device": device.type,
                "precision": precision,
                "threads": threads,
                "seconds": seconds,
            }
            runs.append(ParallelRun(spec, threads, _train_in_parallel(job, count)))
    return WorkersBenchmark(describe_environment(device), batch_size, precision, runs)


def _train_in_parallel(job: Mapping[str, Any], count: int) -> tuple[ProcessResult, ...]:
    """Start processes, let all train once the last one has warmed up, and collect their results.

    Args:
        job: arguments of `_train`, as plain data.
        count: number of processes.

    Raises:
        BudgetnetError: one exits early or runs out of memory.
    """
    what = f"{count} at once, {ModelSpec.from_mapping(job['spec']).params:,} parameters each"
    with _processes(job, count) as processes:
        for process in processes:
            _receive(process, what)
        for process in processes:
            _send(process, _READY)
        return tuple(ProcessResult(*_receive(process, what)) for process in processes)


@contextmanager
def _processes(job: Mapping[str, Any], count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes, and kill them at the end of the block."""
    environment = child_environment()
    if job["threads"] is not None:
        # Libraries read it when they are loaded.
        environment["OMP_NUM_THREADS"] = str(job["threads"])
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "budgetnet.bench.workers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                # Not reached by Ctrl-C, which this process handles.
                start_new_session=True,
            )
            processes.append(process)
            _send(process, job)
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            # communicate() also closes the pipes.
            with suppress(OSError):
                process.communicate()


def _send(process: subprocess.Popen[str], message: object) -> None:
    pipe = cast(IO[str], process.stdin)
    # A process that has exited is reported when its next message is received.
    with suppress(OSError):
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()


def _receive(process: subprocess.Popen[str], what: str) -> Any:
    """Return the next message of a process.

    Raises:
        BudgetnetError: it exited or ran out of memory.
    """
    line = cast(IO[str], process.stdout).readline()
    if not line:
        code = process.wait()
        how = f"killed by signal {-code}, possibly for lack of memory" if code < 0 else f"exit code {code}"
        raise BudgetnetError(f"a training process ({what}) ended early: {how}")
    message = json.loads(line)
    if message == _OUT_OF_MEMORY:
        raise BudgetnetError(f"out of memory on this machine or device while training {what}")
    return message


def _train(
    *, spec: dict[str, Any], batch_size: int, device: str, precision: str, threads: int | None, seconds: float
) -> ProcessResult:
    """Warm up, wait for the parent process, and train."""
    setting = Setting(ModelSpec.from_mapping(dict(spec)), Recipe(), batch_size, torch.device(device))
    if threads is not None:
        torch.set_num_threads(threads)
    step = training_step(setting, precision=precision, execution=Execution())
    memory = PeakMemory(setting.device)
    # On a GPU the first steps benchmark algorithms and capture a graph, and steps are synchronised in groups.
    warm_up, stride = (2, 1) if setting.device.type == "cpu" else (10, 20)
    for _ in range(warm_up):
        step()
    synchronise(setting.device)
    _reply(_READY)
    if not sys.stdin.readline():
        raise BrokenPipeError
    steps, elapsed, start = 0, 0.0, time.perf_counter()
    while elapsed < seconds:
        for _ in range(stride):
            step()
        synchronise(setting.device)
        steps += stride
        elapsed = time.perf_counter() - start
    return ProcessResult(steps * batch_size, elapsed, memory.read())


def _reply(message: object) -> None:
    # Unbuffered, so that nothing is left to flush after the parent process has exited.
    os.write(sys.stdout.fileno(), (json.dumps(message) + "\n").encode())


def _work() -> None:
    """Train as the JSON on standard input says; exit silently if the parent process exits."""
    job = sys.stdin.readline()
    # An interrupt may end the parent process before it has sent all of the job.
    if not job.endswith("\n"):
        return
    with suppress(BrokenPipeError):
        try:
            _reply(_train(**json.loads(job)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _reply(_OUT_OF_MEMORY)


if __name__ == "__main__":
    _work()
