"""Actors of the Ray engine: workers, and the mailbox between them and the driver."""

from __future__ import annotations

import asyncio
import logging
import platform
import shutil
import socket
import tempfile
import time
import warnings
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch

from budgetnet.common.errors import BusyError, InputError
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.jobs import Job, JobEnd
from budgetnet.engines.run_store import RunStore, StoreError
from budgetnet.engines.shared_data import own_folder
from budgetnet.engines.worker_loop import execute
from budgetnet.runs.records import TRAINER_VERSION, RunIdentity
from budgetnet.runs.store import RunFolder
from budgetnet.training.example_filter import PROXIES, proxy_key
from budgetnet.training.run import is_resumable
from budgetnet.training.threads import use_threads
from budgetnet.training.trainer import identify
from budgetnet.version import __version__

_log = logging.getLogger(__name__)

_PUSH_SECONDS = 60.0
"""Longest time between two copies of a run's progress to the store, in whole epochs."""
_PUSH_SHARE = 0.05
"""Share of the time that copies may take; they are made less often where they take long."""
PATIENCE_SECONDS = 600.0
"""Time for which a store may be away."""
_SCRATCH = "budgetnet-worker-"


def versions() -> dict[str, str]:
    """Return the versions that the driver and its workers must have in common."""
    return {
        "budgetnet": __version__,
        "trainer": str(TRAINER_VERSION),
        "torch": torch.__version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


class Mailbox:
    """Carries events of workers to the driver and answers back; it belongs to the driver and ends with it.

    Ray may run calls in another order than they were made in, also those of one caller.
    """

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[int, int, str, tuple[Any, ...]]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Queue[bool | None]] = defaultdict(asyncio.Queue)
        self._attempts: dict[int, int] = {}

    async def assign(self, worker: int, attempt: int) -> None:
        """Accept from now on only events of this attempt, or later ones, from a worker."""
        before = self._attempts.get(worker, 0)
        if attempt > before:
            self._attempts[worker] = attempt
            if (answers := self._answers.pop(before, None)) is not None:
                await answers.put(None)

    async def put(self, worker: int, attempt: int, event: str, values: tuple[Any, ...]) -> bool:
        """Take an event of a worker; return False if its attempt has been replaced."""
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
        if attempt in self._attempts.values():
            await self._answers[attempt].put(reply)

    async def wait_for_answer(self, worker: int, attempt: int) -> bool | None:
        """Wait for the answer to a report; None if the attempt has been replaced."""
        return await self._answers[attempt].get() if self._attempts.get(worker) == attempt else None


class _ReplacedError(Exception):
    """Another attempt has replaced this one, or the driver stops."""


class Worker:
    """Trains one job after another in a folder of its own and copies its progress to the store."""

    def __init__(
        self, number: int, mailbox: Any, *, device: str, store: str, threads: int, threads_requested: bool
    ) -> None:
        """Create the worker.

        Args:
            number: number of the worker.
            mailbox: handle of the mailbox.
            device: type of device to train on.
            store: URL of the run store.
            threads: threads of torch on a CPU.
            threads_requested: whether the user gave their number.
        """
        self._number, self._mailbox, self._device, self._store = number, mailbox, device, store
        self._data: TrainingData | None = None
        use_threads(threads, requested=threads_requested)

    def prepare(self, arrays: dict[str, Any], mark: str) -> dict[str, str]:
        """Receive the images; return the versions of this worker, and its node.

        Args:
            arrays: the images.
            mark: text that the driver left in the store.

        Raises:
            InputError: this machine does not see the driver's store.
            StoreError: the store cannot be read.
        """
        if not RunStore(self._store).has_mark(mark):
            rule = f"is not this store on {socket.gethostname()}; give a URL, or a folder that all machines share"
            raise InputError("store", self._store, rule)
        with warnings.catch_warnings():
            # The images lie in memory that Ray shares between workers; nothing writes to them.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self._data = TrainingData.from_arrays(arrays, device=torch.device(self._device))
        return {**versions(), "node": ray.get_runtime_context().get_node_id()}

    def train(self, mapping: dict[str, Any], attempt: int, _assigned: None) -> None:
        """Train a job, sending its events to the mailbox, which by now accepts those of this attempt."""
        try:
            with own_folder(Path(tempfile.gettempdir()), prefix=_SCRATCH) as scratch:
                self._train(mapping, attempt, scratch / "runs")
        except _ReplacedError:
            return  # The driver no longer listens to this attempt.
        except BusyError as error:
            self._end(attempt, JobEnd("taken over", message=str(error), exit_code=error.exit_code))
        except StoreError as error:
            self._end(attempt, JobEnd("interrupted", message=str(error)))
        except OSError as error:
            message = f"{error.filename or 'system'}: {error.strerror or error}"
            self._end(attempt, JobEnd("interrupted", message=message))

    def _train(self, mapping: dict[str, Any], attempt: int, out: Path) -> None:
        if self._data is None:
            raise RuntimeError("the worker has no images yet")
        job, data, store = Job.from_mapping(mapping), self._data, RunStore(self._store)
        identity = identify(job.run.spec, data, job.run.recipe, seed=job.run.seed)
        folder = store.pull(identity, out, attempt=attempt)
        if not is_resumable(folder):
            # The worker was killed while it copied its progress, so the copies are of different epochs.
            _log.warning("%s: its copy in the store is incomplete, so it starts again", folder.path.name)
            shutil.rmtree(folder.path)
        copies = _Copies(store, folder, identity, attempt)

        def send(event: str, *values: Any) -> None:
            copies.after(event, values)
            self._send(attempt, event, *values)

        try:
            execute(mapping, data, out=out, send=send, wait_for_answer=lambda: self._wait_for_answer(attempt))
        except _ReplacedError:
            copies.push()
            raise

    def _end(self, attempt: int, end: JobEnd) -> None:
        with suppress(_ReplacedError):
            self._send(attempt, "job_end", end.to_mapping())

    def _send(self, attempt: int, event: str, *values: Any) -> None:
        # Waiting for each keeps events in order, and stops a worker whose driver is gone.
        if not ray.get(self._mailbox.put.remote(self._number, attempt, event, values)):
            raise _ReplacedError

    def _wait_for_answer(self, attempt: int) -> bool:
        answer = ray.get(self._mailbox.wait_for_answer.remote(self._number, attempt))
        if answer is None:
            raise _ReplacedError
        return bool(answer)


class _Copies:
    """Copies a run's progress to the store: at the ends of cycles and of the run, and in between as often as is cheap.

    While the store is away, training goes on for some time.
    """

    def __init__(self, store: RunStore, folder: RunFolder, identity: RunIdentity, attempt: int) -> None:
        self._store, self._folder, self._identity, self._attempt = store, folder, identity, attempt
        self._proxies = folder.path.parent / PROXIES if identity.recipe.example_filter else None
        """The choices of example filters, which runs share."""
        self._ends = identity.recipe.schedule.cycle_ends(identity.recipe.epochs)
        self._last = time.monotonic()
        self._pause = 0.0

    def after(self, event: str, values: tuple[Any, ...]) -> None:
        """Copy the run's files after an event if it is time to."""
        if event == "epoch_end":
            if values[0][0] in self._ends or time.monotonic() - self._last >= self._pause:
                self._try()
        elif event == "run_start":
            if self._proxies is not None:
                # Not before the training has chosen its threads, which the key depends on.
                self._store.fetch_shared(f"{PROXIES}/{proxy_key(self._identity)}", self._proxies.parent)
            self.push()
        elif event == "run_end":
            wait = 1.0
            while not self._try():
                time.sleep(wait)
                wait = min(2 * wait, _PUSH_SECONDS)

    def push(self) -> None:
        """Copy the run's files."""
        start = time.monotonic()
        self._store.push(self._folder, attempt=self._attempt)
        if self._proxies is not None:
            self._store.push_shared(self._proxies, PROXIES)
        self._last = time.monotonic()
        self._pause = min(_PUSH_SECONDS, (self._last - start) / _PUSH_SHARE)

    def _try(self) -> bool:
        try:
            self.push()
        except StoreError as error:
            if error.lasting or time.monotonic() - self._last >= PATIENCE_SECONDS:
                raise
            return False
        return True
