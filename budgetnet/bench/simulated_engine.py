"""Engine of simulated workers, to measure the code that hands out jobs to very many."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from budgetnet.engines.jobs import Dispatcher, Engine, Job, JobEnd, Waiting
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback

_SEED = 0


class SimulatedEngine(Engine):
    """Workers on a virtual clock, with invented results."""

    def __init__(
        self, *, workers: int, candidate_seconds: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Create the engine.

        Args:
            workers: number of workers.
            candidate_seconds: training time of a candidate, on average.
            clock: measures the time that the dispatcher takes.
        """
        self._clock = clock
        self.workers, self._seconds = workers, candidate_seconds
        self._random = np.random.default_rng(_SEED)
        self._events: list[tuple[float, int, int, tuple[Job, list[Epoch]]]] = []
        """Ends of cycles: time, order, worker, and what is left of the job."""
        self._order = itertools.count()
        self.now = 0.0
        """Virtual time at which the driver has done its work so far."""
        self._free_since = dict.fromkeys(range(workers), 0.0)
        self._waited = 0.0
        self._reports: list[float] = []
        self.cpu_seconds = 0.0
        """CPU time of the dispatcher so far."""

    @property
    def idle_share(self) -> float:
        """Share of the workers' time in which they waited for the dispatcher."""
        return self._waited / (self.workers * self.now)

    @property
    def report_seconds(self) -> float:
        """Median time to answer a report."""
        return sorted(self._reports)[len(self._reports) // 2] if self._reports else 0.0

    def run(self, dispatcher: Dispatcher, callback: Callback) -> None:  # noqa: ARG002 - a simulation has no events of runs
        """Execute jobs until the dispatcher has none and all have ended."""
        idle = deque(range(self.workers))
        while True:
            while idle:
                job = self._timed(dispatcher.next_job, idle[0])
                if isinstance(job, Waiting):
                    continue
                if job is None:
                    break
                self._begin(idle.popleft(), job)
            self._timed(dispatcher.tick)
            if not self._events:
                return
            # Everything that has happened while the driver was busy is handled before the next write.
            self.now = max(self.now, self._events[0][0])
            while self._events and self._events[0][0] <= self.now:
                at, _, worker, (job, epochs) = heapq.heappop(self._events)
                self._handle(dispatcher, idle, at, worker, job, epochs)

    def _timed(self, call: Callable[..., Any], *values: Any) -> Any:
        start, cpu = self._clock(), time.process_time()
        result = call(*values)
        self.cpu_seconds += time.process_time() - cpu
        self.now += self._clock() - start
        return result

    def _begin(self, worker: int, job: Job) -> None:
        self._waited += self.now - self._free_since[worker]
        recipe = job.run.recipe
        ends = recipe.schedule.cycle_ends(recipe.epochs)
        best = self._random.uniform(0.5, 0.95)
        epochs = [
            Epoch(end, cycle, 0.0, 1.0, best, 1.0, best * end / recipe.epochs, 1.0) for cycle, end in enumerate(ends, 1)
        ]
        self._schedule(worker, job, epochs, previous=0)

    def _schedule(self, worker: int, job: Job, epochs: list[Epoch], *, previous: int) -> None:
        share = (epochs[0].epoch - previous) / job.run.recipe.epochs
        at = self.now + self._seconds * share * self._random.uniform(0.5, 1.5)
        heapq.heappush(self._events, (at, next(self._order), worker, (job, epochs)))

    def _handle(
        self, dispatcher: Dispatcher, idle: deque[int], at: float, worker: int, job: Job, epochs: list[Epoch]
    ) -> None:
        epoch, *left = epochs
        before = self.now
        stops = self._timed(dispatcher.report, worker, epoch)
        self._reports.append(self.now - before)
        if left and not stops:
            self._waited += self.now - at
            self._schedule(worker, job, left, previous=epoch.epoch)
            return
        result = RunResult(
            status="stopped" if stops and left else "complete",
            reason="simulated",
            **job.run.spec.cost._asdict(),
            epochs=epoch.epoch,
            cycles=epoch.cycle,
            best_epoch=epoch.epoch,
            validation_loss=1.0,
            validation_correct=int(10_000 * epoch.validation_accuracy),
            validation_images=10_000,
            seconds=1.0,
        )
        self._free_since[worker] = at
        idle.append(worker)
        self._timed(dispatcher.ended, worker, JobEnd("trained", result, 1, "simulated"))
