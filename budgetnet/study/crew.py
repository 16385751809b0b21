"""Worker processes of a search: start them, receive their events, restart killed ones and stop them.

They are plain programs spoken to through pipes, not those of ``multiprocessing``: these would run the caller's main
program once more, which fails in a notebook and in a script without a ``__main__`` guard.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch

from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import BudgetnetError
from budgetnet.engines.local import PlannedRun
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.study import worker as worker_program
from budgetnet.study.driver import End, Plan, SearchContext, SearchOutcome, require_feasible
from budgetnet.study.outcomes import is_trained
from budgetnet.study.storage import open_study, storage_errors
from budgetnet.training.callbacks import Callback, Callbacks, RunInfo

MAX_KILLED = 3
"""Times in a row that a worker may be killed from outside, without a candidate in between, before the search ends."""
_END_PATIENCE = 60.0
"""Seconds for a worker to end after it was told to."""


class _Report(NamedTuple):
    """An event of a worker."""

    event: str
    slot: int
    values: list[Any]


class _Hand(NamedTuple):
    """A worker process and the thread that reads its events."""

    process: subprocess.Popen[str]
    listener: threading.Thread

    def tell_to_stop(self) -> None:
        """Asks the worker to end within its step."""
        with suppress(OSError):
            commands = cast(IO[str], self.process.stdin)
            commands.write(f"{worker_program.STOP}\n")
            commands.flush()

    def end(self) -> int:
        """Waits for the process, and makes it end if it does not; gives its exit status."""
        try:
            self.process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        return self.process.returncode


class Crew:
    """Worker processes on one study, which share its images and the cores or the GPUs."""

    def __init__(self, context: SearchContext, callback: Callback) -> None:
        """Make workers, which are started by `search` and `train`.

        Args:
            context: settings, data, storage and folder of the study, and the number of workers.
            callback: is told of progress.
        """
        self._context, self._callback = context, Callbacks([callback])

    def search(self, plan: Plan) -> SearchOutcome:
        """As `budgetnet.study.driver.search`.

        Raises:
            OverBudgetError: not even the smallest network of the space fits.
            RecordError: the study asks another question.
            BusyError: another search is running on the study.
            BudgetnetError: a worker failed, or was killed again and again.
        """
        context = self._context
        require_feasible(context.settings, context.data)
        context.out.mkdir(parents=True, exist_ok=True)
        with context.presence.searching(), storage_errors(context.storage):
            study = open_study(context.storage, context.study_name, context.settings)
            enqueued = [spec.to_mapping() for spec in plan.enqueued]
            end = self._work({"trials": plan.trials, "deadline": plan.deadline, "enqueued": enqueued, "runs": []})
            trained = sum(map(is_trained, study.get_trials(deepcopy=False)))
            return SearchOutcome(study, trained, end)

    def train(self, runs: Sequence[PlannedRun]) -> None:
        """As `budgetnet.engines.local.train_runs`.

        Raises:
            BudgetnetError: a worker failed, or was killed again and again.
        """
        self._work({"runs": [run.to_mapping() for run in runs]})

    def _work(self, task: dict[str, Any]) -> End:
        """Shares the images, and lets the workers do what is to be done with them."""
        context = self._context
        # By the study, which only one search works on at a time: what a killed one left behind is replaced.
        shared = context.presence.shared_data
        on_cpu = context.settings.device == "cpu"
        job = {
            **task,
            "settings": context.settings.to_mapping(),
            "study": context.study_name,
            "storage": context.storage.url,
            "out": str(context.out),
            "data": str(shared),
            "threads": max(1, min(torch.get_num_threads(), available_cores() // context.workers)) if on_cpu else None,
        }
        try:
            context.data.share(shared)
            return _Shift(job, workers=context.workers, callback=self._callback).work()
        finally:
            shutil.rmtree(shared, ignore_errors=True)


class _Shift:
    """The workers while they do one job."""

    def __init__(self, job: dict[str, Any], *, workers: int, callback: Callback) -> None:
        self._job, self._workers, self._callback = job, workers, callback
        self._reports: queue.Queue[_Report] = queue.Queue()
        self._hands: dict[int, _Hand] = {}
        self._killed = dict.fromkeys(range(workers), 0)
        """Times in a row that each was killed."""
        self._training: set[int] = set()
        """Workers whose runs have begun and are not known to have ended."""

    def work(self) -> End:
        """Lets the workers work until none has anything left to begin."""
        ends: list[End] = []
        try:
            for slot in range(self._workers):
                self._start(slot)
            while self._hands:
                self._hear(self._reports.get(), ends)
        finally:
            # After the last report nobody is left; before it, an interrupt or a failure ends the others as well.
            for hand in self._hands.values():
                hand.tell_to_stop()
            for hand in self._hands.values():
                hand.end()
            for slot in list(self._training):
                self._break_off(slot, None)
        return next((end for end in ("time", "exhausted") if end in ends), "done")

    def _start(self, slot: int) -> None:
        process = subprocess.Popen(  # noqa: S603 - this very Python, with nothing that was typed in
            # -P, or the working folder could slip modules of its own beneath the first imports.
            [sys.executable, "-P", "-m", worker_program.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(slot, cuda=self._job["settings"]["device"] == "cuda"),
            # Out of reach of the terminal's Ctrl-C, which is answered here.
            start_new_session=True,
        )
        listener = threading.Thread(target=self._listen, args=(slot, process), name=f"worker {slot}", daemon=True)
        self._hands[slot] = _Hand(process, listener)
        listener.start()
        with suppress(OSError):  # One that has gone already is heard of by its silence.
            commands = cast(IO[str], process.stdin)
            commands.write(json.dumps({**self._job, "slot": slot}) + "\n")
            commands.flush()

    def _listen(self, slot: int, process: subprocess.Popen[str]) -> None:
        for line in cast(IO[str], process.stdout):
            with suppress(ValueError):  # A worker that is killed may leave half a line behind.
                event, _, *values = json.loads(line)
                self._reports.put(_Report(event, slot, values))
        self._reports.put(_Report("gone", slot, []))

    def _hear(self, report: _Report, ends: list[End]) -> None:
        event, slot, values = report
        if event == "turned_away":
            self._callback.on_trial_rejected(worker=slot)
        elif event == "begun":
            self._training.add(slot)
            self._callback.on_run_start(RunInfo.from_mapping(values[0]), worker=slot)
        elif event == "stepped":
            self._callback.on_step_end(*values, worker=slot)
        elif event == "epoch_ended":
            self._callback.on_epoch_end(Epoch(*values[0]), worker=slot)
        elif event == "ended":
            self._killed[slot] = 0
            self._training.discard(slot)
            self._callback.on_run_end(RunResult.from_mapping(values[0]), worker=slot)
        elif event == "broken_off":
            self._break_off(slot, values[0])
        elif event == "failed":
            raise _as_error(*values)
        elif event == "done":
            ends.append(values[0])
            self._dismiss(slot)
        elif event == "gone" and slot in self._hands:
            status = self._dismiss(slot)
            if slot in self._training:
                self._break_off(slot, None)
            self._killed[slot] += 1
            if self._killed[slot] > MAX_KILLED:
                rule = "repeat the command to resume the search; fewer workers need less memory"
                times = f"{self._killed[slot]} times in a row, at last with status {status}"
                raise BudgetnetError(f"a worker process died {times}: {rule}")
            self._start(slot)

    def _break_off(self, slot: int, reason: str | None) -> None:
        self._training.discard(slot)
        self._callback.on_run_interrupted(reason, worker=slot)

    def _dismiss(self, slot: int) -> int:
        return self._hands.pop(slot).end()


def _as_error(message: str, exit_code: int) -> BudgetnetError:
    error = BudgetnetError(message)
    error.exit_code = exit_code
    return error


def _environment(slot: int, *, cuda: bool) -> dict[str, str]:
    """The environment of a worker: with the same places to import from, and with one GPU in sight."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    if cuda:
        seen = environment.get("CUDA_VISIBLE_DEVICES")
        devices = seen.split(",") if seen else [str(index) for index in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return environment
