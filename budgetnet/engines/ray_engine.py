"""Engine whose workers are actors of a Ray cluster, on this machine or on many."""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from budgetnet.common.errors import BudgetnetError
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.jobs import Dispatcher, JobEnd
from budgetnet.engines.ray_address import require_ray
from budgetnet.engines.ray_connection import connect, disconnect, last_line
from budgetnet.engines.remote import Message, RemoteEngine
from budgetnet.engines.run_store import RunStore, StoreError
from budgetnet.training.callbacks import Callback
from budgetnet.training.threads import are_threads_requested

_log = logging.getLogger(__name__)

_STOP_SECONDS = 10.0
"""Seconds for workers to end their step and copy their progress after they were told to stop."""
_ROOM_SECONDS = 60.0
"""Seconds without any worker after which the user is told what the cluster lacks."""
_RETRY_SECONDS = 5.0
"""Seconds between two attempts to read a store that is away."""


class RayEngine(RemoteEngine):
    """Workers of a Ray cluster: the one already connected to, that of ``RAY_ADDRESS``, or a new one on this machine."""

    def __init__(
        self, data: TrainingData, *, out: Path, device: str, workers: int | None, per_gpu: int, store: str | None
    ) -> None:
        """Create the engine; it connects to the cluster in `run`.

        Args:
            data: training and validation images.
            out: folder of run folders on this machine.
            device: type of device to train on.
            workers: number of workers; None: as many as the cluster has room for.
            per_gpu: number of workers that share a GPU.
            store: URL at which workers keep runs; None: ``out``, which all machines then share.
        """
        super().__init__(data, out=out, device=device, workers=workers or 0)
        self._per_gpu, self._remote = per_gpu, store is not None
        self._store = RunStore(store or str(out.resolve()))
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        """Nodes of the workers that are ready."""
        self._attempts: dict[int, int] = {}
        self._pending: dict[Any, int] = {}
        """Workers by the references of what they are doing."""
        self._unfetched: list[Message] = []
        """Ends of jobs whose run folders could not be fetched yet."""
        self._away_since = self._retry_at = 0.0
        self._without_worker_since: float | None = None
        self._connected_here = False
        self._threads, self._threads_requested = 1, False
        self._mark = ""

    def run(self, dispatcher: Dispatcher, callback: Callback) -> None:
        """Execute jobs until the dispatcher has none and all have ended.

        Raises:
            InputError: Ray is not installed, or no cluster answers.
            BudgetnetError: a worker failed or has other versions, workers die again and again, or the cluster is gone.
        """
        require_ray()
        import ray

        try:
            super().run(dispatcher, callback)
        except ray.exceptions.RayError as error:
            reason = f"the Ray cluster is gone ({last_line(error)}); the same command resumes on a new one"
            raise BudgetnetError(reason) from None

    def _start_all(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from budgetnet.engines.ray_worker import Mailbox

        self._mark = secrets.token_hex(8)
        self._store.leave_mark(self._mark)
        self._connected_here = connect()
        # By itself torch uses all cores of this machine, which says nothing about the cluster's machines.
        self._threads_requested = "OMP_NUM_THREADS" in os.environ or are_threads_requested()
        self._threads = torch.get_num_threads() if self._threads_requested else 1
        self.set_workers(self.workers or max(1, self._room()))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 100_000, "scheduling_strategy": here}
        self._mailbox = ray.remote(Mailbox).options(**options).remote()
        self._arrays = ray.put(self.data.to_arrays())
        self._events = self._mailbox.take.remote()
        for worker in range(self.workers):
            self._start(worker)

    def _room(self) -> int:
        """Return the number of workers that the cluster has room for."""
        import ray

        resources = ray.cluster_resources()
        if self.device == "cuda":
            return int(resources.get("GPU", 0)) * self._per_gpu
        return int(resources.get("CPU", 1)) // self._threads

    @property
    def _needs(self) -> dict[str, float]:
        """Resources of a worker."""
        return {"num_cpus": self._threads, **({"num_gpus": 1 / self._per_gpu} if self.device == "cuda" else {})}

    def _start(self, worker: int) -> None:
        import ray

        from budgetnet.engines.ray_worker import Worker

        self._kill(worker)
        # What the old process still sends, if it is only out of reach, is no longer taken.
        self._assign(worker)
        actor = ray.remote(Worker).options(max_restarts=0, max_task_retries=0, **self._needs)
        self._actors[worker] = actor.remote(
            worker,
            self._mailbox,
            device=self.device,
            store=self._store.url,
            threads=self._threads,
            threads_requested=self._threads_requested,
        )
        self._pending[self._actors[worker].prepare.remote(self._arrays, self._mark)] = worker

    def _kill(self, worker: int) -> None:
        import ray

        self._pending = {reference: each for reference, each in self._pending.items() if each != worker}
        self._nodes.pop(worker, None)
        actor = self._actors.pop(worker, None)
        if actor is not None:
            ray.kill(actor)

    def _send(self, worker: int, *message: Any) -> None:
        kind, value = message
        if kind == "answer":
            self._mailbox.answer.remote(self._attempts[worker], value)
            return
        # The worker waits for it: an event that overtakes it would be refused, and the worker would give up.
        assigned = self._assign(worker)
        self._pending[self._actors[worker].train.remote(value, self._attempts[worker], assigned)] = worker

    def _assign(self, worker: int) -> Any:
        """Begin an attempt, later than any before, also of an earlier driver; return the mailbox's reply."""
        attempt = self._attempts[worker] = max([time.time_ns(), *(1 + each for each in self._attempts.values())])
        return self._mailbox.assign.remote(worker, attempt)

    def _receive(self, timeout: float) -> list[Message]:
        import ray

        self._tell_if_nothing_starts()
        messages = self._fetched(self._take_unfetched())
        waiting = [self._events, *self._pending]
        done, _ = ray.wait(waiting, num_returns=1, timeout=0 if messages else timeout)
        if not done:
            return messages
        done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        if self._events in done:
            events = ray.get(self._events)
            self._events = self._mailbox.take.remote()
            messages += self._fetched(
                [
                    Message(worker, event, values)
                    for worker, attempt, event, values in events
                    if attempt == self._attempts.get(worker)
                ]
            )
        for reference in done:
            if reference in self._pending:
                messages += self._result(self._pending.pop(reference), reference)
        return messages

    def _result(self, worker: int, reference: Any) -> list[Message]:
        """Return what the end of a worker's call means: that it is ready or gone, or nothing after a job."""
        import ray

        from budgetnet.engines.ray_worker import versions

        try:
            found = ray.get(reference)
        except ray.exceptions.ActorUnavailableError:
            # Dead or out of reach: the answer to this call tells.
            self._pending[self._actors[worker].__ray_ready__.remote()] = worker
            return []
        except (BudgetnetError, ray.exceptions.RayError) as error:
            return [self._problem(worker, error)]
        if found is None:
            return []
        if found is True:
            # In reach again, but its job may never have reached it.
            return [Message(worker, "gone", (True,))]
        own = versions()
        differing = [f"{name} {found.get(name)}, here {own[name]}" for name in own if found.get(name) != own[name]]
        if differing:
            return [Message(worker, "failed", (f"a worker has other versions: {'; '.join(differing)}", 1))]
        self._nodes[worker] = found["node"]
        return [Message(worker, "ready")]

    def _problem(self, worker: int, error: Exception) -> Message:
        """Return what an exception from a worker's call means: it is gone, or it cannot work."""
        import ray

        cause = getattr(error, "cause", error)
        if isinstance(cause, BudgetnetError):
            return Message(worker, "failed", (str(cause), cause.exit_code))
        if getattr(error, "actor_init_failed", False):
            return Message(worker, "failed", (f"a worker cannot start: {last_line(error)}", 1))
        if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error, ray.exceptions.RayActorError):
            return Message(worker, "failed", (f"a worker failed: {last_line(error)}", 1))
        return Message(worker, "gone", (self._has_lost_node(worker),))

    def _has_lost_node(self, worker: int) -> bool:
        """Return whether the node of a worker that is gone is gone too, so that its job is not the cause."""
        import ray

        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return worker in self._nodes and self._nodes[worker] not in alive

    def _take_unfetched(self) -> list[Message]:
        if not self._unfetched or time.monotonic() < self._retry_at:
            return []
        taken, self._unfetched = self._unfetched, []
        return taken

    def _fetched(self, messages: list[Message]) -> list[Message]:
        """Fetch the folders of runs that have ended; return the messages but those whose folders cannot be read now."""
        return [message for message in messages if self._fetch(message)]

    def _fetch(self, message: Message) -> bool:
        if not self._remote or message.event != "job_end":
            return True
        end = JobEnd.from_mapping(message.values[0])
        try:
            if end.outcome == "trained":
                self._store.fetch(end.run, self.out)
        except StoreError as error:
            from budgetnet.engines.ray_worker import PATIENCE_SECONDS

            now = time.monotonic()
            self._away_since = self._away_since or now
            if error.lasting or now - self._away_since >= PATIENCE_SECONDS:
                raise
            self._retry_at = now + _RETRY_SECONDS
            self._unfetched.append(message)
            return False
        self._away_since = 0.0
        return True

    def _tell_if_nothing_starts(self) -> None:
        """Tell the user once if the cluster has had no room for any worker for some time."""
        if self._nodes:
            self._without_worker_since = None
            return
        now = time.monotonic()
        if self._without_worker_since is None:
            self._without_worker_since = now
        elif now - self._without_worker_since >= _ROOM_SECONDS:
            self._without_worker_since = float("inf")
            needs = ", ".join(f"{number:g} {name[4:-1].upper()}" for name, number in self._needs.items())
            _log.warning("waiting for a node of the Ray cluster with room for a worker (%s)", needs)

    def _stop_all(self) -> None:
        try:
            self._stop_workers()
        finally:
            if self._mark:
                self._store.remove_mark(self._mark)

    def _stop_workers(self) -> None:
        import ray

        if not ray.is_initialized():
            return
        try:
            # Workers that are ready end their step, copy their progress and remove their files.
            ending = [reference for reference, worker in self._pending.items() if worker in self._nodes]
            if ending:
                for worker in self._nodes:
                    self._assign(worker)
                ray.wait(ending, num_returns=len(ending), timeout=_STOP_SECONDS)
        finally:
            with suppress(ray.exceptions.RayError):
                self._disconnect()

    def _disconnect(self) -> None:
        import ray

        for worker in list(self._actors):
            self._kill(worker)
        if hasattr(self, "_mailbox"):
            ray.kill(self._mailbox)
        # An error or an interrupt at the start may have left some unset.
        for name in ("_mailbox", "_arrays", "_events"):
            self.__dict__.pop(name, None)
        self._pending.clear()
        self._attempts.clear()
        if self._connected_here:
            disconnect()
            self._connected_here = False
