"""Locks of a study and of its workers, and heartbeats of running trials."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from budgetnet.common.errors import BusyError

HEARTBEAT_INTERVAL = 30
"""Seconds between two signs of life of a candidate in training."""
GRACE_PERIOD = 150
"""Seconds without one after which a candidate of a machine out of sight is taken for lost."""

_GATE_PATIENCE = 120.0
"""Seconds to wait for another worker's proposal to be written."""
_SLOT_PATIENCE = 60.0
"""Seconds to wait for a worker that has lost its search to end."""


class Presence:
    """Locks of a study, and this process's slot among its workers.

    A worker holds its slot's lock while it lives; the system lets go of it with the process. So whether a trial's
    worker is still alive is known at once, without waiting for a heartbeat to stay away.
    """

    def __init__(self, storage: RDBStorage, study: str, out: Path, *, slot: int = 0) -> None:
        """Make the locks, without acquiring one.

        Args:
            storage: where the study lives.
            study: its name.
            out: folder of run folders, where locks lie unless the storage is an SQLite file.
            slot: number of this worker, from 0.
        """
        database = storage.engine.url.database if storage.engine.url.get_backend_name() == "sqlite" else None
        self.in_file = bool(database) and database != ":memory:"
        """Whether the study lives in a file, beside which every worker on it has its lock."""
        if self.in_file:
            file = Path(str(database)).resolve()
            folder, place, self.place = file.parent, file.name, "beside the file"
        else:
            folder, place = out, str(storage.engine.url)
            self.place = f"{socket.gethostname()}:{out.resolve()}"
        # A digest, because a study may be called what no file can.
        digest = hashlib.sha256("\n".join((place, study)).encode()).hexdigest()
        self._stem = folder / f".study-{digest[:16]}"
        self.study, self.slot = study, slot
        self.worker = f"{self.place}#{slot}"
        """Who this process is, as its trials say."""
        self._own = FileLock(self._path(f"-{slot}"))

    def _path(self, suffix: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}{suffix}.lock")

    @property
    def shared_data(self) -> Path:
        """The folder in which a search lays out its images for its workers."""
        return self._stem.with_name(f"{self._stem.name}-data")

    @property
    def search_lock(self) -> Path:
        """The file that keeps two searches off one study."""
        return self._path("")

    def __enter__(self) -> Self:
        """Acquire the lock of the slot.

        Raises:
            BusyError: a worker of an earlier search is still there.
        """
        try:
            self._own.acquire(timeout=_SLOT_PATIENCE)
        except Timeout:
            raise BusyError("study", self.study, "a worker of an earlier search is still running") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.release()

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Hold the lock of the search, which is released when the process ends.

        Raises:
            BusyError: another search is running on it.
        """
        try:
            with FileLock(self.search_lock, timeout=0):
                yield
        except Timeout:
            raise BusyError("study", self.study, "another search is running on this study") from None

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Hold the lock under which workers read and start trials.

        Raises:
            BusyError: another worker does not come out.
        """
        try:
            with FileLock(self._path("-gate"), timeout=_GATE_PATIENCE):
                yield
        except Timeout:
            raise BusyError("study", self.study, "another worker holds its lock for too long") from None

    def in_sight(self, worker: object) -> bool:
        """Return whether this process can see the lock of a trial's worker; always so for SQLite files."""
        return self.in_file or str(worker).startswith(f"{self.place}#")

    def is_alive(self, worker: object) -> bool:
        """Return whether a worker with a visible lock is running."""
        place, _, slot = str(worker).rpartition("#")
        if place != self.place or not slot.isdecimal():
            return False
        if int(slot) == self.slot:
            return self._own.is_locked
        path = self._path(f"-{slot}")
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True


@contextmanager
def heartbeat(storage: RDBStorage, trial_id: int) -> Iterator[None]:
    """Record heartbeats of a running trial from a thread until the block ends."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_INTERVAL):
            # A storage that is busy or away for a moment is asked again with the next beat.
            with suppress(SQLAlchemyError, StorageInternalError):
                storage.record_heartbeat(trial_id)
        storage.remove_session()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
