"""Writes of a search to its storage: collected, grouped into transactions, and repeated while the storage is away."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import ChainMap
from collections.abc import Callable, MutableMapping, Sequence
from copy import copy
from datetime import datetime
from typing import Any, NamedTuple

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from budgetnet.common.errors import BusyError, RecordError
from budgetnet.common.formatting import duration
from budgetnet.common.passwords import without_password
from budgetnet.study.bulk import TrialTables
from budgetnet.study.lock import StudyLock
from budgetnet.study.storage import STORAGE_ERRORS, storage_errors

_log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds for which a search goes on without its storage."""
LOCK_PATIENCE = 90.0
"""Seconds for which a search goes on while another connection holds its lock: after a connection broke, a server keeps
its session, and so the lock, until the keepalives fail."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two attempts to reach a storage; each pause is twice as long as the one before."""
_LASTING = ("no such", "readonly", "read-only", "does not exist", "permission denied")
"""Parts of messages of operational errors that waiting does not mend."""

Write = Callable[[TrialTables, MutableMapping[int, int]], None]
"""A write, given the ids of trials by their numbers."""


class _Sent(NamedTuple):
    """A transaction."""

    mark: str
    """What it left in the storage, as JSON."""
    writes: int
    """Number of its writes, the first of those that are pending."""
    ids: dict[int, int]
    """Ids of its new trials, by their numbers."""


class TrialWriter:
    """The only writer of a study's trials: collects writes until `flush`."""

    def __init__(self, storage: RDBStorage, study_name: str, trials: Sequence[FrozenTrial], *, lock: StudyLock) -> None:
        """Create the writer.

        Args:
            storage: storage of the study.
            study_name: name of the study.
            trials: all trials of the study.
            lock: lock of the study, which is held.
        """
        self._storage, self._study_name, self._lock = storage, study_name, lock
        self._study_id = storage.get_study_id_from_name(study_name)
        self._ids = {trial.number: trial._trial_id for trial in trials}
        self._last_id = max(self._ids.values(), default=None)
        self._pending: list[Write] = []
        self._sent: _Sent | None = None
        """A transaction of which the end is not known: an interrupt or a lost connection came between."""
        self._away_since: float | None = None
        self._busy_since: float | None = None
        self._retry_at, self._pause = 0.0, _FIRST_PAUSE

    def insert(self, trial: FrozenTrial) -> None:
        """Write a new trial as it is now; its values and attributes may be replaced later, but not changed."""
        as_it_is = copy(trial)

        def write(tables: TrialTables, ids: MutableMapping[int, int]) -> None:
            ids[as_it_is.number] = tables.insert(as_it_is)

        self._pending.append(write)

    def report(self, number: int, *, step: int, value: float, system_attrs: dict[str, Any]) -> None:
        """Write an intermediate value of a trial."""
        self._pending.append(
            lambda tables, ids: tables.report(ids[number], step=step, value=value, system_attrs=system_attrs)
        )

    def close(
        self, number: int, *, state: TrialState, values: Sequence[float] | None, user_attrs: dict[str, Any]
    ) -> None:
        """Write the end of a trial."""
        ended = datetime.now()
        self._pending.append(
            lambda tables, ids: tables.close(
                ids[number], state=state, values=values, user_attrs=user_attrs, ended=ended
            )
        )

    def flush(self, *, wait: bool = False) -> None:
        """Write what was collected, in one transaction, or nothing if the storage is away and may come back.

        Args:
            wait: whether to wait for a storage that is away.

        Raises:
            RecordError: the storage cannot be used, or is away for too long; the study was deleted, or another program
                added trials to it.
            BusyError: another search took over the lock.
        """
        while self._pending and not self._try():
            if not wait:
                return
            time.sleep(max(0.0, self._retry_at - time.monotonic()))

    def _try(self) -> bool:
        """Try to write; return False if the storage is away."""
        if self._away_since is not None and time.monotonic() < self._retry_at:
            return False
        try:
            with storage_errors(self._storage):
                try:
                    # A server that was restarted has forgotten its locks, also if no write failed meanwhile.
                    self._lock.renew()
                    self._write()
                except (*STORAGE_ERRORS, BusyError) as error:
                    if not self._wait_after(error):
                        raise
                    return False
        finally:
            self._storage.remove_session()
        if self._away_since is not None:
            _log.warning("storage %s: reached again", without_password(str(self._storage.url)))
            self._away_since, self._busy_since, self._pause = None, None, _FIRST_PAUSE
        return True

    def _write(self) -> None:
        new: dict[int, int] = {}
        ids = ChainMap(new, self._ids)
        try:
            with self._storage.engine.begin() as connection:
                tables = TrialTables(connection, self._study_id)
                if self._sent is not None and tables.mark() == self._sent.mark:
                    self._take_over(self._sent)
                if tables.last_id() != self._last_id:
                    rule = "another program added trials to it during the search; repeat the command to go on"
                    raise RecordError("study", self._study_name, rule)
                for write in self._pending:
                    write(tables, ids)
                sent = _Sent(json.dumps(secrets.token_hex(8)), len(self._pending), new)
                tables.leave_mark(sent.mark)
                self._sent = sent
        except KeyError:
            raise RecordError("study", self._study_name, "was deleted during the search") from None
        self._take_over(sent)

    def _take_over(self, sent: _Sent) -> None:
        """Forget the writes of a transaction that was committed, and keep the ids of its trials."""
        self._ids |= sent.ids
        self._last_id = max(sent.ids.values(), default=self._last_id)
        del self._pending[: sent.writes]
        self._sent = None

    def _wait_after(self, error: BaseException) -> bool:
        """Return whether to go on without the storage after an error, and choose the time of the next attempt."""
        now = time.monotonic()
        if isinstance(error, BusyError):
            self._busy_since = self._busy_since or now
            self._retry_later(now, f"the study's lock is held; training goes on for {duration(LOCK_PATIENCE)}")
            return now - self._busy_since < LOCK_PATIENCE
        cause = error if isinstance(error, DBAPIError) else error.__cause__
        away = isinstance(cause, (OperationalError, InterfaceError)) or getattr(cause, "connection_invalidated", False)
        if not away or any(part in str(cause) for part in _LASTING):
            return False
        problem = f"cannot be reached; training goes on, and it is tried again for {duration(PATIENCE)}"
        return now - self._retry_later(now, problem) < PATIENCE

    def _retry_later(self, now: float, problem: str) -> float:
        """Choose the time of the next attempt, and tell the user once why there is one; return since when."""
        if self._away_since is None:
            self._away_since = now
            _log.warning("storage %s: %s", without_password(str(self._storage.url)), problem)
        self._retry_at, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return self._away_since
