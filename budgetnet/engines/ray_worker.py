"""Actors of the Ray engine: workers, and the mailbox between them and the driver."""

from __future__ import annotations

import asyncio
import platform
import shutil
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import ray
import torch

from budgetnet.common.errors import BusyError
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.jobs import Job, JobEnd
from budgetnet.engines.run_store import RunStore
from budgetnet.engines.worker_loop import execute
from budgetnet.runs.records import TRAINER_VERSION, RunIdentity
from budgetnet.runs.store import RunFolder
from budgetnet.training.trainer import identify
from budgetnet.version import __version__

_PUSH_SECONDS = 60.0
"""Longest time between two copies of a run's progress to the store, in whole epochs."""


def versions() -> dict[str, str]:
    """Return the versions that the driver and its workers must have in common."""
    return {
        "budgetnet": __version__,
        "trainer": str(TRAINER_VERSION),
        "torch": torch.__version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


class Mailbox:
    """Carries events of workers to the driver and answers back; it belongs to the driver and ends with it."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[int, int, str, tuple[Any, ...]]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Queue[bool]] = defaultdict(asyncio.Queue)
        self._attempts: dict[int, int] = {}

    async def assign(self, worker: int, attempt: int) -> None:
        """Accept from now on only events of this attempt from a worker."""
        self._answers.pop(self._attempts.get(worker, 0), None)
        self._attempts[worker] = attempt

    async def put(self, worker: int, attempt: int, event: str, values: tuple[Any, ...]) -> bool:
        """Take an event of a worker; return False if another attempt has replaced it."""
        if self._attempts.get(worker) != attempt:
            return False
        await self._events.put((worker, attempt, event, values))
        return True

    async def take(self) -> list[tuple[int, int, str, tuple[Any, ...]]]:
        """Wait for events, and return all that are there."""
        events = [await self._events.get()]
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events

    async def answer(self, attempt: int, reply: bool) -> None:
        """Answer a report."""
        await self._answers[attempt].put(reply)

    async def wait_for_answer(self, attempt: int) -> bool:
        """Wait for the answer to a report."""
        return await self._answers[attempt].get()


class _ReplacedError(Exception):
    """Another attempt has replaced this one."""


class Worker:
    """Trains one job after another in a folder of its own and copies its progress to the store."""

    def __init__(self, number: int, mailbox: Any, *, device: str, store: str, threads: int) -> None:
        """Create the worker.

        Args:
            number: number of the worker.
            mailbox: handle of the mailbox.
            device: type of device to train on.
            store: URL of the run store.
            threads: threads of torch on a CPU.
        """
        self._number, self._mailbox, self._device, self._store = number, mailbox, device, RunStore(store)
        self._scratch = Path(tempfile.mkdtemp(prefix="budgetnet-"))
        self._data: TrainingData | None = None
        torch.set_num_threads(threads)

    def prepare(self, arrays: dict[str, Any]) -> dict[str, str]:
        """Receive the images; return the versions of this worker."""
        with warnings.catch_warnings():
            # The images lie in memory that Ray shares between workers; nothing writes to them.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self._data = TrainingData.from_arrays(arrays, device=torch.device(self._device))
        return versions()

    def train(self, mapping: dict[str, Any], attempt: int) -> None:
        """Train a job, sending its events to the mailbox."""
        if self._data is None:
            raise RuntimeError("the worker has no images yet")
        job, data = Job.from_mapping(mapping), self._data
        identity = identify(job.run.spec, data, job.run.recipe, seed=job.run.seed)
        out = self._scratch / "runs"
        try:
            folder = self._store.pull(identity, out, attempt=attempt)
        except BusyError as error:
            self._send(attempt, "job_end", JobEnd("busy", message=str(error)).to_mapping())
            return
        copies = _Copies(self._store, folder, identity, attempt)

        def send(event: str, *values: Any) -> None:
            copies.after(event, values)
            self._send(attempt, event, *values)

        try:
            execute(mapping, data, out=out, send=send, wait_for_answer=lambda: self._wait_for_answer(attempt))
        except _ReplacedError:
            return
        except BusyError as error:
            self._send(attempt, "job_end", JobEnd("busy", message=str(error)).to_mapping())
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _send(self, attempt: int, event: str, *values: Any) -> None:
        # Waiting for each keeps events in order, and stops a worker whose driver is gone.
        if not ray.get(self._mailbox.put.remote(self._number, attempt, event, values)):
            raise _ReplacedError

    def _wait_for_answer(self, attempt: int) -> bool:
        return bool(ray.get(self._mailbox.wait_for_answer.remote(attempt)))


class _Copies:
    """Copies a run's progress to the store: at the ends of cycles and of the run, and every minute."""

    def __init__(self, store: RunStore, folder: RunFolder, identity: RunIdentity, attempt: int) -> None:
        self._store, self._folder, self._attempt = store, folder, attempt
        self._ends = identity.recipe.schedule.cycle_ends(identity.recipe.epochs)
        self._last = time.monotonic()

    def after(self, event: str, values: tuple[Any, ...]) -> None:
        """Copy the run's files after an event if it is time to."""
        at_cycle_end = event == "epoch_end" and values[0][0] in self._ends
        late = event == "epoch_end" and time.monotonic() - self._last >= _PUSH_SECONDS
        if at_cycle_end or late or event in ("run_start", "run_end"):
            self._store.push(self._folder, attempt=self._attempt)
            self._last = time.monotonic()
