"""Engine with several worker processes on this machine.

They are plain programs with pipes, not those of ``multiprocessing``: these would run the caller's main program once
more, which fails in a notebook and in a script without a ``__main__`` guard.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch

from budgetnet.common.cpu import available_cores
from budgetnet.data.training_data import TrainingData
from budgetnet.engines import worker as worker_program
from budgetnet.engines.deaths import Ending
from budgetnet.engines.remote import Message, RemoteEngine
from budgetnet.engines.shared_data import shared_data
from budgetnet.training.threads import are_threads_requested

_STOP_SECONDS = 60.0
"""Seconds for a worker to end after it was told to."""


class _Process(NamedTuple):
    """A worker process and the thread that reads its events."""

    popen: subprocess.Popen[str]
    listener: threading.Thread

    def send(self, message: Any) -> None:
        """Write a message as one line; nothing happens if the process is gone."""
        with suppress(OSError, ValueError):  # A closed pipe raises ValueError.
            pipe = cast(IO[str], self.popen.stdin)
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

    def end(self) -> int:
        """Wait for the process, and kill it if it does not end; return its exit status."""
        try:
            self.popen.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.listener.join()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        return self.popen.returncode


class ProcessEngine(RemoteEngine):
    """Worker processes on this machine, which share one copy of the images and the cores or the GPUs."""

    def __init__(self, data: TrainingData, *, out: Path, device: str, workers: int) -> None:
        """Create the engine; the processes start with `run`.

        Args:
            data: training and validation images.
            out: folder of run folders.
            device: type of device to train on.
            workers: number of worker processes.
        """
        super().__init__(data, out=out, device=device, workers=workers)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._processes: dict[int, _Process] = {}
        self._resources = ExitStack()
        self._setup: dict[str, Any] = {}

    def _start_all(self) -> None:
        folder = self._resources.enter_context(shared_data(self.data, out=self.out))
        threads = max(1, min(torch.get_num_threads(), available_cores() // self.workers))
        self._setup = {
            "data": str(folder),
            "out": str(self.out),
            "device": self.device,
            "threads": threads if self.device == "cpu" else None,
            "threads_requested": are_threads_requested(),
        }
        for worker in range(self.workers):
            self._start(worker)

    def _start(self, worker: int) -> None:
        if worker in self._processes:
            self._processes.pop(worker).end()
        popen = subprocess.Popen(  # noqa: S603 - this very Python, with nothing that was typed in
            # -P, or the working folder could put modules of its own in front of the first imports.
            [sys.executable, "-P", "-m", worker_program.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(worker, cuda=self.device == "cuda"),
            # Out of reach of the terminal's Ctrl-C, which this process answers.
            start_new_session=True,
        )
        listener = threading.Thread(target=self._listen, args=(worker, popen), name=f"worker {worker}", daemon=True)
        process = self._processes[worker] = _Process(popen, listener)
        listener.start()
        process.send(self._setup)

    def _listen(self, worker: int, popen: subprocess.Popen[str]) -> None:
        for line in cast(IO[str], popen.stdout):
            with suppress(ValueError):  # A worker that is killed may leave half a line behind.
                event, *values = json.loads(line)
                self._messages.put(Message(worker, event, values))
        self._messages.put(Message(worker, "gone"))

    def _send(self, worker: int, *message: Any) -> None:
        self._processes[worker].send(message)

    def _receive(self, timeout: float) -> list[Message]:
        messages = []
        with suppress(queue.Empty):
            messages.append(self._messages.get(timeout=timeout) if timeout else self._messages.get_nowait())
            while True:
                messages.append(self._messages.get_nowait())
        return messages

    def _ending(self, worker: int) -> Ending:
        return Ending(self._processes[worker].end())

    def _stop_all(self) -> None:
        for process in self._processes.values():
            process.send(worker_program.STOP)
        for process in self._processes.values():
            process.end()
        self._processes.clear()
        self._messages = queue.SimpleQueue()
        self._resources.close()


def _environment(worker: int, *, cuda: bool) -> dict[str, str]:
    """Return the environment of a worker: with the same places to import from, and with one visible GPU."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    if cuda:
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = devices[worker % len(devices)]
    return environment
