"""What every worker process does, however its messages are carried: train one job after another."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from budgetnet.data.training_data import TrainingData
from budgetnet.engines.jobs import Job
from budgetnet.engines.running import run_job
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, RunInfo

_STEP_SECONDS = 0.2
"""Least time between two messages of steps."""

Send = Callable[..., None]
"""Sends an event with its values to the engine."""


def execute(
    job: dict[str, Any], data: TrainingData, *, out: Path, send: Send, wait_for_answer: Callable[[], bool]
) -> None:
    """Train a job and send its events and its end.

    Args:
        job: the job as plain data.
        data: training and validation images, on the training device.
        out: folder of run folders.
        send: sends an event.
        wait_for_answer: waits for the answer to a report.
    """

    def report(epoch: Epoch) -> bool:
        send("report", list(epoch))
        return wait_for_answer()

    end = run_job(Job.from_mapping(job), data, out=out, callback=_Sender(send), report=report)
    send("job_end", end.to_mapping())


class _Sender(Callback):
    """Callback that sends the events of runs to the engine."""

    def __init__(self, send: Send) -> None:
        self._send, self._last_step = send, 0.0

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:  # noqa: ARG002 - the engine knows who sends
        self._send("run_start", run.to_mapping())

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:  # noqa: ARG002 - likewise
        now = time.monotonic()
        if now - self._last_step >= _STEP_SECONDS:
            self._last_step = now
            self._send("step_end", epoch, share)

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:  # noqa: ARG002 - likewise
        self._send("epoch_end", list(epoch))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:  # noqa: ARG002 - likewise
        self._send("run_end", result.to_mapping())

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:  # noqa: ARG002 - likewise
        self._send("run_interrupted", reason)
