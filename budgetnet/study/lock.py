"""Lock of a study: one search at a time writes to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from budgetnet.common.errors import BusyError
from budgetnet.study.bulk import sqlite_file
from budgetnet.study.storage import server_options

_KEEPALIVES = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
"""Settings of a connection by which a PostgreSQL server finds out within a minute that a machine is gone."""

_HOLDERS = """
    SELECT COUNT(*) FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = :key
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Query for the number of connections that hold a lock."""


def is_searched(study: optuna.Study) -> bool:
    """Return whether a search of the study is running, or may be where that cannot be found out."""
    kept = getattr(study._storage, "_backend", study._storage)
    if not isinstance(kept, RDBStorage) or (sqlite_file(kept) is None and kept.engine.name != "postgresql"):
        return True
    # Only the lock of other storages is in the folder of runs.
    return not StudyLock(kept, study.study_name, Path()).is_free()


class StudyLock:
    """Lock that the system releases when its process or its connection ends.

    On PostgreSQL it is an advisory lock of the server, so that it also holds between machines. Elsewhere it is a file,
    beside an SQLite file or in the folder of run folders.
    """

    def __init__(self, storage: RDBStorage, study: str, out: Path) -> None:
        """Create the lock without acquiring it.

        Args:
            storage: storage of the study.
            study: name of the study.
            out: folder of run folders.
        """
        self._storage, self._study = storage, study
        self._connection: Connection | None = None
        file = sqlite_file(storage)
        folder, place = (file.parent, file.name) if file else (out, str(storage.engine.url))
        # A digest, because a study may have a name that no file can have.
        digest = hashlib.sha256("\n".join((place, study)).encode()).hexdigest()
        self.path = folder / f".study-{digest[:16]}.lock"
        """Lock file, unless the storage is a PostgreSQL server."""
        self._key = int(hashlib.sha256(study.encode()).hexdigest()[:15], 16)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock.

        Raises:
            BusyError: another search holds it.
        """
        if self._storage.engine.name == "postgresql":
            self.renew()
            try:
                yield
            finally:
                self._disconnect()
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path)
        try:
            # A command that only asks whether it is held, `is_searched`, holds it for an instant.
            lock.acquire(timeout=1)
        except Timeout:
            raise self._busy() from None
        try:
            yield
        finally:
            lock.release()

    def is_free(self) -> bool:
        """Return whether nothing holds the lock; False if that cannot be found out."""
        if self._storage.engine.name == "postgresql":
            with self._storage.engine.connect() as connection:
                return connection.execute(text(_HOLDERS), {"key": self._key}).scalar() == 0
        if not self.path.exists():
            return True
        try:
            with FileLock(self.path, timeout=0):
                return True
        except Timeout:
            return False
        except OSError:
            return _is_unlocked(self.path)

    def renew(self) -> None:
        """Acquire a server's lock unless it is held, as a server forgets it when a connection breaks.

        Raises:
            BusyError: another search holds it.
        """
        if self._storage.engine.name != "postgresql" or self._is_connected():
            return
        self._disconnect()
        # A connection of its own: one from a pool could be replaced without notice, and the lock with it.
        url = self._storage.engine.url
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **server_options(url))
        self._connection = engine.connect()
        # Or a server would keep the lock of a machine that was switched off for hours.
        for setting, value in _KEEPALIVES.items():
            self._connection.execute(text(f"SET {setting} = {value}"))
        if not self._connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}).scalar():
            self._disconnect()
            raise self._busy()

    def _is_connected(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def _busy(self) -> BusyError:
        return BusyError("study", self._study, "another search is running on this study")


def _is_unlocked(path: Path) -> bool:
    """Return whether nothing holds a lock file that may only be read; False if that cannot be found out."""
    try:
        import fcntl
    except ImportError:  # Only Unix has shared locks.
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
