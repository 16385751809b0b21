"""Runner of studies: one after another, resumable, with their state in `status.json`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any, NamedTuple

import study_checkout
from filelock import FileLock, Timeout
from study_commands import run_command
from study_order import ORDER_FILE, Command, Order, Study, Values, filled_in, steps
from study_records import UNFINISHED, keep_records, restore_unfinished
from study_state import Status, StudyState, now

from budgetnet.common.errors import BusyError, InputError
from budgetnet.common.files import replace_atomically


class Place:
    """Folder for checkout, runs, records, logs and state of the studies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        self.status_file = folder / "status.json"
        self._lock = folder / ".lock"

    def runs(self, study: Study) -> Path:
        """Return the folder of a study's run folders."""
        return self.folder / "runs" / study.runs_folder

    def records(self, study: Study) -> Path:
        """Return the folder of a study's records."""
        return self.folder / "records" / study.name

    def log(self, study: Study) -> Path:
        """Return the log file of a study's commands."""
        return self.folder / "logs" / f"{study.name}.log"

    def status(self) -> Status | None:
        """Read the state of the studies; None before the first run.

        Raises:
            InputError: the file is damaged.
        """
        return Status.load(self.status_file) if self.status_file.exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this folder.

        Raises:
            BusyError: another runner holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._lock, timeout=0):
                yield
        except Timeout:
            raise BusyError("--out", str(self.folder), "another runner is running these studies") from None

    def is_locked(self) -> bool:
        """Return whether a runner holds the lock."""
        if not self._lock.exists():
            return False
        try:
            with self.locked():
                return False
        except BusyError:
            return True


class Options(NamedTuple):
    """Options of the runner."""

    data: str
    declare: str | None
    only: str | None
    update: bool
    idle: bool
    """Whether commands run at the lowest priority."""
    threads: int
    """Number of threads of a training."""


class Runner:
    """Runs the studies of a repository."""

    def __init__(self, repository: Path, place: Place, options: Options) -> None:
        self._repository, self._place, self._options = repository, place, options

    def run(self) -> bool:
        """Run all unfinished studies; return whether all of them are finished.

        Raises:
            BudgetnetError: git failed, the order file is missing or invalid, or the data set has changed.
            BusyError: another runner is running.
            KeyboardInterrupt: the runner was interrupted.
        """
        place = self._place
        with place.locked(), _interrupted_by_sigterm():
            if not place.checkout.exists():
                print(f"cloning {study_checkout.describe(self._repository)}", flush=True)
                study_checkout.clone(self._repository, place.checkout)
            status = self._status()
            all_finished = True
            done: set[str] = set()
            while True:
                # Read again before each study, as an update may have changed it.
                if self._options.update:
                    study_checkout.update(self._repository, place.checkout)
                study = self._next(status, done)
                if study is None:
                    return all_finished
                done.add(study.name)
                missing = study.missing(place.checkout)
                if missing:
                    print(f"{study.name}: not ready: {missing[0]} is missing", flush=True)
                    all_finished = False
                    continue
                status = self._run_study(study, status)
                all_finished &= status.studies[study.name].state == "finished"

    def _next(self, status: Status, done: set[str]) -> Study | None:
        """Return the next study: the first unfinished one, or the one that ``--only`` names."""
        order = Order.load(self._place.checkout / ORDER_FILE)
        if self._options.only is not None:
            study = order.get(self._options.only)
            return None if study.name in done else study
        finished = {name for name, study in status.studies.items() if study.state == "finished"}
        return next((study for study in order.studies if study.name not in finished | done), None)

    def _status(self) -> Status:
        """Read the state of the studies; reject another data set."""
        data, declare = absolute_data(self._options.data), self._options.declare
        found = self._place.status()
        if found is None:
            return Status(data=data, declare=declare)
        if (found.data, found.declare) != (data, declare):
            before = found.data + (f" declared to be {found.declare}" if found.declare else "")
            rule = f"the studies in {self._place.folder} were started with {before}; name another --out"
            raise InputError("--data", data, rule)
        return found

    def _run_study(self, study: Study, status: Status) -> Status:
        """Run one study and save its state; stop at the first failing command."""
        place = self._place
        commit = study_checkout.head_of(place.checkout)
        state = StudyState(state="running", commit=commit, started=now())
        status = status.with_study(study.name, state)
        status.save_to(place.status_file)
        print(f"{study.name}: started, commit {commit[:10]}, log {place.log(study)}", flush=True)
        end: dict[str, Any] = {"state": "interrupted"}
        try:
            code, reason = self._run_commands(study, status)
            if code == 0:
                keep_records(study, runs=place.runs(study), records=place.records(study))
            end = {"state": "failed" if code else "finished", "exit_code": code, "reason": reason}
        finally:
            state = StudyState.from_mapping({**state.to_mapping(), **end, "ended": now()})
            status = status.with_study(study.name, state)
            status.save_to(place.status_file)
            print(f"{study.name}: {state.state}{f': {state.reason}' if state.reason else ''}", flush=True)
        return status

    def _run_commands(self, study: Study, status: Status) -> tuple[int, str]:
        """Run a study's commands until one fails; return its exit code and the reason, or 0 and an empty text."""
        place = self._place
        for folder in (place.runs(study), place.records(study), place.log(study).parent):
            folder.mkdir(parents=True, exist_ok=True)
        for run in restore_unfinished(place.checkout / UNFINISHED / study.runs_folder, place.runs(study)):
            print(f"{study.name}: resuming {run} from studies/unfinished", flush=True)
        # Relative to the checkout, so that records hold no path of this machine.
        values = Values(
            data=_linked(status.data, place.checkout),
            out=os.path.relpath(place.runs(study), place.checkout),
            records=os.path.relpath(place.records(study), place.checkout),
            declare=status.declare,
        )
        with place.log(study).open("ab", buffering=0) as log:
            for command, seed in steps(study):
                try:
                    argv = filled_in(command, values, seed=seed, folder=place.checkout)
                    log.write(f"{now().isoformat()} $ {' '.join(argv)}\n".encode())
                    code = self._run_command(command, argv, study, log)
                except (InputError, OSError) as error:
                    return 1, " ".join(str(error).split())[:500]
                if code not in command.exit_codes:
                    return code or 1, f"{' '.join(argv)[:400]} ended with exit code {code}"
        return 0, ""

    def _run_command(self, command: Command, argv: Sequence[str], study: Study, log: IO[bytes]) -> int:
        """Run one command; its output replaces the file among the records only if it succeeds."""
        options = self._options
        run = partial(
            run_command, argv, checkout=self._place.checkout, log=log, idle=options.idle, threads=options.threads
        )
        if command.stdout is None:
            return run(stdout=log)
        written = self._place.records(study) / f".{command.stdout}.new"
        with written.open("wb") as stdout:
            code = run(stdout=stdout)
        if code in command.exit_codes:
            replace_atomically(written, written.with_name(command.stdout))
        return code


def absolute_data(data: str) -> str:
    """Make the path in the name of a data set absolute.

    Raises:
        InputError: no such file or folder.
    """
    kind, _, path = data.partition(":")
    if not path:
        return data
    found = Path(path).expanduser().resolve()
    if not found.exists():
        raise InputError("--data", data, "no such file or folder")
    return f"{kind}:{found}"


def _linked(data: str, checkout: Path) -> str:
    """Link a data set's file or folder into the checkout; return its name with a path relative to the checkout.

    Raises:
        InputError: the checkout has a file of the same name.
    """
    kind, _, path = data.partition(":")
    if not path:
        return data
    link = checkout / Path(path).name
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise InputError("--data", data, f"must not be named {link.name}, like a file of the repository")
    link.symlink_to(path)
    return f"{kind}:{link.name}"


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGINT, even if a shell ignores SIGINT."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
