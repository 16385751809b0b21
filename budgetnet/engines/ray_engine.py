"""Engine whose workers are actors of a Ray cluster, on this machine or on many."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch

from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.jobs import Dispatcher, JobEnd
from budgetnet.engines.remote import Message, RemoteEngine
from budgetnet.training.callbacks import Callback

_CONNECT_SECONDS = 5.0
"""Seconds to wait for a cluster's address to answer."""


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
        self._per_gpu, self._store = per_gpu, store
        self._actors: dict[int, Any] = {}
        self._attempts: dict[int, int] = {}
        self._pending: dict[Any, int] = {}
        """Workers by the references of what they are doing."""
        self._connected_here = False
        self._threads = 1

    def run(self, dispatcher: Dispatcher, callback: Callback) -> None:
        """Execute jobs until the dispatcher has none and all have ended.

        Raises:
            InputError: Ray is not installed, or no cluster answers.
            BudgetnetError: a worker failed or has other versions, or workers die again and again.
        """
        require_extra("ray", "ray", field="engine", value="ray")
        super().run(dispatcher, callback)

    def _start_all(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from budgetnet.engines.ray_worker import Mailbox

        self._connect()
        # An unset OMP_NUM_THREADS means all cores of this machine, which says nothing about the cluster's machines.
        self._threads = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1
        if not self.workers:
            self.workers = max(1, self._room())
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 100_000, "scheduling_strategy": here}
        self._mailbox = ray.remote(Mailbox).options(**options).remote()
        self._arrays = ray.put(self.data.to_arrays())
        self._events = self._mailbox.take.remote()
        for worker in range(self.workers):
            self._start(worker)

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        address = os.environ.get("RAY_ADDRESS")
        if address:
            _require_answer(address)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None if address else False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            rule = f"cannot be used: {' '.join(str(error).split())}"
            raise InputError("RAY_ADDRESS", address, rule) from None
        self._connected_here = True

    def _room(self) -> int:
        """Return the number of workers that the cluster has room for."""
        import ray

        resources = ray.cluster_resources()
        if self.device == "cuda":
            return int(resources.get("GPU", 0)) * self._per_gpu
        return int(resources.get("CPU", 1)) // self._threads

    def _start(self, worker: int) -> None:
        import ray

        from budgetnet.engines.ray_worker import Worker

        self._kill(worker)
        self._pending = {reference: each for reference, each in self._pending.items() if each != worker}
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "num_cpus": self._threads}
        if self.device == "cuda":
            options["num_gpus"] = 1 / self._per_gpu
        actor = ray.remote(Worker).options(**options)
        store = self._store or str(self.out.resolve())
        self._actors[worker] = actor.remote(
            worker, self._mailbox, device=self.device, store=store, threads=self._threads
        )
        self._pending[self._actors[worker].prepare.remote(self._arrays)] = worker

    def _kill(self, worker: int) -> None:
        import ray

        actor = self._actors.pop(worker, None)
        if actor is not None:
            ray.kill(actor)

    def _send(self, worker: int, *message: Any) -> None:
        kind, value = message
        if kind == "answer":
            self._mailbox.answer.remote(self._attempts[worker], value)
            return
        # Later than any attempt before, also of an earlier driver.
        attempt = self._attempts[worker] = time.time_ns()
        self._mailbox.assign.remote(worker, attempt)
        self._pending[self._actors[worker].train.remote(value, attempt)] = worker

    def _receive(self, timeout: float) -> list[Message]:
        import ray

        waiting = [self._events, *self._pending]
        done, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        if not done:
            return []
        done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        messages: list[Message] = []
        if self._events in done:
            for worker, attempt, event, values in ray.get(self._events):
                if attempt == self._attempts.get(worker):
                    messages += self._fetched(Message(worker, event, values))
            self._events = self._mailbox.take.remote()
        for reference in done:
            if reference in self._pending:
                worker = self._pending.pop(reference)
                messages += self._result(worker, reference)
        return messages

    def _result(self, worker: int, reference: Any) -> list[Message]:
        """Return what the end of a worker's call means: that it is ready or gone, or nothing after a job."""
        import ray

        from budgetnet.engines.ray_worker import versions

        try:
            found = ray.get(reference)
        except ray.exceptions.RayActorError:
            return [Message(worker, "gone")]
        except ray.exceptions.RayTaskError as error:
            return [Message(worker, "failed", (f"a worker failed: {_last_line(error)}", 1))]
        if found is None:
            return []
        own = versions()
        differing = [f"{name} {found.get(name)}, here {own[name]}" for name in own if found.get(name) != own[name]]
        if differing:
            return [Message(worker, "failed", (f"a worker has other versions: {'; '.join(differing)}", 1))]
        return [Message(worker, "ready")]

    def _fetched(self, message: Message) -> list[Message]:
        """Fetch the folder of a run that has ended, unless it is on this machine already."""
        if self._store and message.event == "job_end":
            end = JobEnd.from_mapping(message.values[0])
            if end.outcome == "trained":
                from budgetnet.engines.run_store import RunStore

                RunStore(self._store).fetch(end.run, self.out)
        return [message]

    def _ending(self, worker: int) -> str:
        return f"worker {worker} of the Ray cluster"

    def _stop_all(self) -> None:
        import ray

        if not ray.is_initialized():
            return
        for worker in list(self._actors):
            self._kill(worker)
        if hasattr(self, "_mailbox"):
            ray.kill(self._mailbox)
            del self._mailbox, self._arrays
        self._pending.clear()
        self._attempts.clear()
        if self._connected_here:
            ray.shutdown()
            self._connected_here = False


def _require_answer(address: str) -> None:
    """Require that something listens at a cluster's address, as Ray itself waits for it for minutes.

    Raises:
        InputError: nothing answers there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError):
        rule = "no Ray cluster answers there; ray start --head starts one"
        raise InputError("RAY_ADDRESS", address, rule) from None


def _last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
