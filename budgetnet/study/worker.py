"""Worker process of a search: reads its job from standard input and writes events to standard output.

One line of JSON each. It ends with its search: by a line that says so, or because the pipe is closed, as it is when the
process at the other end is killed.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from budgetnet.common.errors import BudgetnetError
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, RunInfo

STOP = "stop"
"""What a search tells a worker that shall end within its step."""
_QUIET_SECONDS = 0.2
"""Least time between two reports of steps."""


class _Teller(Callback):
    """Callback that writes events for the search."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._told = stream, 0.0

    def tell(self, event: str, slot: int, *values: Any) -> None:
        """One line, written whole."""
        self._stream.write(json.dumps([event, slot, *values]) + "\n")
        self._stream.flush()

    def on_trial_rejected(self, *, worker: int) -> None:
        """Write the event of a rejected candidate."""
        self.tell("turned_away", worker)

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Write the event of a run that starts."""
        self.tell("begun", worker, run.to_mapping())

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        """Write the event of a step, at most once in `_QUIET_SECONDS`."""
        now = time.monotonic()
        if now - self._told >= _QUIET_SECONDS:
            self._told = now
            self.tell("stepped", worker, epoch, share)

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """Write the event of an epoch."""
        self.tell("epoch_ended", worker, list(epoch))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """Write the event of a run that ended."""
        self.tell("ended", worker, result.to_mapping())

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        """Write the event of an interrupted run."""
        self.tell("broken_off", worker, reason)


def _obey(stream: TextIO, working: threading.Event) -> None:
    """Wait for the command to stop, and exit when the pipe is closed."""
    if stream.readline().strip() == STOP and working.is_set():
        _thread.interrupt_main()
    if not stream.readline():
        os._exit(1)


def main() -> int:
    """Do the job; return the exit code."""
    # Started by a search that ignores interrupts, as in the background of a script, it must hear the word to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What anything else prints, also what is no Python, must not be taken for a report.
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    teller = _Teller(reports)
    line = sys.stdin.readline()
    if not line:
        return 1  # Nobody is there any more.
    job = json.loads(line)
    slot, working = job["slot"], threading.Event()
    working.set()
    try:
        threading.Thread(target=_obey, args=(sys.stdin, working), name="obey", daemon=True).start()
        try:
            end = _work(job, teller)
        finally:
            working.clear()
        teller.tell("done", slot, end)
    except KeyboardInterrupt:
        return 130
    except BudgetnetError as error:
        teller.tell("failed", slot, str(error), error.exit_code)
        return error.exit_code
    except OSError as error:
        teller.tell("failed", slot, f"{error.filename or 'system'}: {error.strerror or error}", 1)
        return 1
    except Exception as error:
        traceback.print_exc()
        teller.tell("failed", slot, f"{type(error).__name__}: {error}", 1)
        return 1
    return 0


def _work(job: dict[str, Any], teller: _Teller) -> str:
    import torch

    from budgetnet.data.training_data import TrainingData
    from budgetnet.engines.local import PlannedRun, train_runs
    from budgetnet.model.spec import ModelSpec
    from budgetnet.study.driver import Plan, SearchContext, Worker
    from budgetnet.study.presence import Presence
    from budgetnet.study.settings import StudySettings
    from budgetnet.study.storage import open_storage, open_study, storage_errors

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    settings = StudySettings.from_mapping(job["settings"])
    data = TrainingData.open_shared(Path(job["data"]), device=torch.device(settings.device))
    out, storage = Path(job["out"]), open_storage(job["storage"], create=True)
    with Presence(storage, job["study"], out, slot=job["slot"]) as presence, storage_errors(storage):
        if job["runs"]:
            runs = [PlannedRun.from_mapping(run) for run in job["runs"]]
            train_runs(runs, data, out=out, callback=teller, worker=presence.slot)
            return "done"
        study = open_study(storage, job["study"], settings)
        context = SearchContext(settings, data, job["study"], storage, out)
        worker = Worker(context, study=study, presence=presence, callback=teller)
        enqueued = tuple(ModelSpec.from_mapping(spec) for spec in job["enqueued"])
        return worker.work(Plan(job["trials"], enqueued, job["deadline"]))


if __name__ == "__main__":
    exit_code = main()
    # At once: an interrupt that is still on its way would only spoil a farewell.
    os._exit(exit_code)
