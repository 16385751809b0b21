"""Engines whose workers are other processes: hand out jobs, receive events, and replace workers that die."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgetnet.common.errors import BudgetnetError
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.deaths import Ending
from budgetnet.engines.jobs import Dispatcher, Engine, JobEnd, Waiting
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, Callbacks, RunInfo

_log = logging.getLogger(__name__)

MAX_DEATHS = 9
"""Times in a row that a worker may die, without a job ended in between, before the engine gives up."""
MAX_FAILED_STARTS = 3
"""Times in a row that a worker may die before it is ready, before the engine gives up."""
_TICK_SECONDS = 1.0
"""Longest time between two ticks of the dispatcher."""


class Message(NamedTuple):
    """A message of a worker."""

    worker: int
    event: str
    values: Sequence[Any] = ()


class RemoteEngine(Engine):
    """Base class of engines with worker processes.

    A subclass starts and stops workers and carries messages. Events of a worker: ``ready`` once, then for each job the
    events of its callback, ``report`` with the last epoch of a cycle, which is answered, and ``job_end``; ``failed`` if
    it cannot start; ``gone``, as the last one, when its process has ended, with True if its job is not to blame.
    """

    def __init__(self, data: TrainingData, *, out: Path, device: str, workers: int) -> None:
        """Create the engine.

        Args:
            data: training and validation images.
            out: folder of run folders.
            device: type of device to train on.
            workers: number of worker processes.
        """
        self.data, self.out, self.device = data, out, device
        self.set_workers(workers)
        self._idle: set[int] = set()
        self._training: set[int] = set()
        self._started_runs: set[int] = set()
        """Workers whose runs have started and are not known to have ended."""
        self._epochs: dict[int, int] = {}
        """Epochs that have ended of each worker's run, once the run has started."""
        self._callback = Callbacks([])

    def set_workers(self, workers: int) -> None:
        """Set the number of workers, before they are started."""
        self.workers = workers
        self._deaths = dict.fromkeys(range(workers), 0)
        self._failed_starts = dict.fromkeys(range(workers), 0)

    @abstractmethod
    def _start_all(self) -> None:
        """Prepare the data and start every worker."""

    @abstractmethod
    def _start(self, worker: int) -> None:
        """Start a worker anew."""

    @abstractmethod
    def _send(self, worker: int, *message: Any) -> None:
        """Send a message to a worker; nothing happens if it is gone."""

    @abstractmethod
    def _receive(self, timeout: float) -> list[Message]:
        """Return all messages that have arrived, after waiting at most ``timeout`` seconds for the first."""

    @abstractmethod
    def _stop_all(self) -> None:
        """Make every worker end, and remove what `_start_all` prepared."""

    def _ending(self, worker: int) -> Ending:  # noqa: ARG002 - for engines that know more
        """Return how the process of a worker that is gone ended."""
        return Ending()

    def run(self, dispatcher: Dispatcher, callback: Callback) -> None:
        """Execute jobs until the dispatcher has none and all have ended.

        Raises:
            BudgetnetError: a worker failed, or workers die again and again.
        """
        self._callback = Callbacks([callback])
        try:
            self._start_all()
            while True:
                waiting = self._hand_out(dispatcher)
                dispatcher.tick()
                if self._idle and not self._training and not waiting:
                    return
                for message in self._receive(0.0 if waiting else _TICK_SECONDS):
                    self._handle(message, dispatcher)
        finally:
            self._stop_all()
            for worker in sorted(self._started_runs):
                self._callback.on_run_interrupted(None, worker=worker)
            for worker in sorted(self._training):
                dispatcher.interrupted(worker, death=None, epochs=self._epochs.get(worker))
            for each in (self._idle, self._training, self._started_runs, self._epochs):
                each.clear()

    def _hand_out(self, dispatcher: Dispatcher) -> bool:
        """Give jobs to idle workers; return whether the dispatcher is to be asked again at once."""
        for worker in sorted(self._idle):
            job = dispatcher.next_job(worker)
            if isinstance(job, Waiting):
                return True
            if job is None:
                break
            self._idle.discard(worker)
            self._training.add(worker)
            self._epochs.pop(worker, None)
            self._send(worker, "job", job.to_mapping())
        return False

    def _handle(self, message: Message, dispatcher: Dispatcher) -> None:
        worker, event, values = message
        if event == "ready":
            self._failed_starts[worker] = 0
            self._idle.add(worker)
        elif event == "report":
            self._send(worker, "answer", dispatcher.report(worker, Epoch(*values[0])))
        elif event == "job_end":
            self._training.discard(worker)
            self._deaths[worker] = 0
            self._idle.add(worker)
            dispatcher.ended(worker, JobEnd.from_mapping(values[0]))
        elif event == "failed":
            raise JobEnd("failed", message=values[0], exit_code=values[1]).as_error()
        elif event == "gone":
            self._replace(worker, dispatcher, blameless=any(values))
        else:
            self._call_back(worker, event, values)

    def _call_back(self, worker: int, event: str, values: Sequence[Any]) -> None:
        if event == "run_start":
            self._started_runs.add(worker)
            run = RunInfo.from_mapping(values[0])
            self._epochs[worker] = len(run.curves)
            self._callback.on_run_start(run, worker=worker)
        elif event == "step_end":
            self._callback.on_step_end(*values, worker=worker)
        elif event == "epoch_end":
            epoch = Epoch(*values[0])
            self._epochs[worker] = epoch.epoch
            self._deaths[worker] = 0
            self._callback.on_epoch_end(epoch, worker=worker)
        elif event == "run_end":
            self._started_runs.discard(worker)
            self._callback.on_run_end(RunResult.from_mapping(values[0]), worker=worker)
        elif event == "run_interrupted":
            self._started_runs.discard(worker)
            self._callback.on_run_interrupted(values[0], worker=worker)

    def _replace(self, worker: int, dispatcher: Dispatcher, *, blameless: bool) -> None:
        """Start a worker anew that has died."""
        was_training, was_idle = worker in self._training, worker in self._idle
        self._idle.discard(worker)
        self._training.discard(worker)
        if worker in self._started_runs:
            self._started_runs.discard(worker)
            self._callback.on_run_interrupted(None, worker=worker)
        ending = None if blameless else self._ending(worker)
        if was_training:
            dispatcher.interrupted(worker, death=ending, epochs=self._epochs.get(worker))
        counts, most = (
            (self._deaths, MAX_DEATHS) if was_training or was_idle else (self._failed_starts, MAX_FAILED_STARTS)
        )
        counts[worker] += not blameless
        if counts[worker] >= most:
            since = "before it was ready" if counts is self._failed_starts else "without having trained an epoch"
            raise BudgetnetError(f"worker {worker} died {most} times in a row {since}{_advice(ending or Ending())}")
        if ending and not was_training:
            when = "while it waited for a run" if was_idle else "before it was ready"
            _log.warning("worker %d %s %s; it is started again", worker, ending, when)
        self._start(worker)


def _advice(ending: Ending) -> str:
    """Return how the last process ended, and what helps."""
    if ending.killed:
        return f"{ending.last}, which is often for lack of memory: repeat the command with fewer workers to resume"
    return f"{ending.last}: repeat the command to resume"
