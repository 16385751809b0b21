"""Optuna's tables, read and written by plain queries; no other module knows them but `trial_tables` and `trial_rows`.

Optuna has no public way to write the end of a trial with its attributes, or several attributes of a study, in one
transaction, so that a killed process leaves all of it or nothing. Its public calls also take 16 times as long: 85 ms of
CPU time, against 5, for a candidate that begins, reports three times and ends. Besides public methods of `RDBStorage`
this module uses its table layout and `RDBStorage._get_trials`, so pyproject.toml bounds Optuna's version; tests compare
what is read and written with Optuna's own, on SQLite and PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from budgetnet.common.errors import RecordError
from budgetnet.common.files import resolved
from budgetnet.study.trial_rows import (
    DamagedError,
    attribute_rows,
    param_rows,
    parse,
    stored_report,
    stored_time,
    value_rows,
)
from budgetnet.study.trial_tables import AT_ONCE, tables_of, trials_where

_MARK = "budgetnet:written"
"""System attribute of a study: mark of the last transaction of a search."""


class TrialStorage(RDBStorage):
    """Optuna's relational storage, with trials read and reports written by a few plain queries.

    Samplers, pruners and the dashboard see no difference; they wait a fraction of the time.
    """

    # What Optuna's cache asks for: the trials that it does not know to have ended.
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        tables = tables_of(self.engine)
        older = [each for each in included_trial_ids if each <= trial_id_greater_than]
        if len(older) > AT_ONCE:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        wanted = or_(tables.trials.c.trial_id > trial_id_greater_than, tables.trials.c.trial_id.in_(older))
        with self.engine.connect() as connection:
            known = select(tables.studies.c.study_id).where(tables.studies.c.study_id == study_id)
            if trial_id_greater_than < 0 and connection.execute(known).first() is None:
                raise KeyError(f"no study has the id {study_id}")
            found = trials_where(connection, tables, and_(tables.trials.c.study_id == study_id, wanted))
        return [trial for trial in found if states is None or trial.state in states]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user attributes of a study.

        Raises:
            RecordError: one is damaged.
        """
        return _of_study(self, "study_user_attributes", study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the system attributes of a study.

        Raises:
            RecordError: one is damaged.
        """
        return _of_study(self, "study_system_attributes", study_id)


class TrialTables:
    """Writes trials of one study within a transaction of the caller."""

    def __init__(self, connection: Connection, study_id: int) -> None:
        """Lock the study for the transaction.

        Args:
            connection: connection with a transaction.
            study_id: id of the study in the storage.

        Raises:
            KeyError: the study was deleted.
        """
        self._connection, self._tables, self._study_id = connection, tables_of(connection.engine), study_id
        studies = self._tables.studies
        # A write first: SQLite refuses a transaction that reads before another one has written.
        own = update(studies).where(studies.c.study_id == study_id).values(study_name=studies.c.study_name)
        if connection.execute(own).rowcount != 1:
            raise KeyError(f"no study has the id {study_id}")

    def last_id(self) -> int | None:
        """Return the highest id of a trial of the study; None without trials."""
        trials = self._tables.trials
        last = self._connection.execute(select(func.max(trials.c.trial_id)).where(trials.c.study_id == self._study_id))
        found = last.scalar()
        return None if found is None else int(found)

    def mark(self) -> str | None:
        """Return the mark of the last transaction that left one."""
        kept = self._tables.study_system_attributes.c
        found = select(kept.value_json).where(kept.study_id == self._study_id, kept.key == _MARK)
        value = self._connection.execute(found).scalar()
        return None if value is None else str(value)

    def leave_mark(self, mark: str) -> None:
        """Leave a mark by which this transaction is known, as JSON, in place of the last one."""
        kept = self._tables.study_system_attributes
        own = update(kept).where(kept.c.study_id == self._study_id, kept.c.key == _MARK).values(value_json=mark)
        if self._connection.execute(own).rowcount == 0:
            _insert(self._connection, {kept: [{"key": _MARK, "value_json": mark}]}, study_id=self._study_id)

    def insert(self, trial: FrozenTrial) -> int:
        """Insert a trial with its number, its values finite; return its id."""
        tables = self._tables
        row = {
            "study_id": self._study_id,
            "number": trial.number,
            "state": trial.state.name,
            "datetime_start": stored_time(trial.datetime_start),
            "datetime_complete": stored_time(trial.datetime_complete),
        }
        (trial_id,) = self._connection.execute(insert(tables.trials).values(**row)).inserted_primary_key or (0,)
        rows = {
            tables.trial_params: param_rows(trial),
            tables.trial_user_attributes: attribute_rows(trial.user_attrs),
            tables.trial_system_attributes: attribute_rows(trial.system_attrs),
            tables.trial_intermediate_values: [
                {"step": step, **stored_report(value)} for step, value in trial.intermediate_values.items()
            ],
            tables.trial_values: value_rows(trial.values),
        }
        _insert(self._connection, rows, trial_id=trial_id)
        return int(trial_id)

    def report(self, trial_id: int, *, step: int, value: float, system_attrs: dict[str, Any]) -> None:
        """Insert an intermediate value of a trial, with new system attributes."""
        tables = self._tables
        rows = {
            tables.trial_intermediate_values: [{"step": step, **stored_report(value)}],
            tables.trial_system_attributes: attribute_rows(system_attrs),
        }
        _insert(self._connection, rows, trial_id=trial_id)

    def close(
        self,
        trial_id: int,
        *,
        state: TrialState,
        values: Sequence[float] | None,
        user_attrs: dict[str, Any],
        ended: datetime | None,
    ) -> None:
        """End a trial with its values, finite, or None, and with user attributes, which replace those of equal name."""
        tables = self._tables
        row = {"state": state.name, "datetime_complete": stored_time(ended)}
        self._connection.execute(update(tables.trials).where(tables.trials.c.trial_id == trial_id).values(**row))
        kept = tables.trial_user_attributes
        old = delete(kept).where(kept.c.trial_id == trial_id, kept.c.key.in_(list(user_attrs)))
        self._connection.execute(old)
        _insert(
            self._connection,
            {kept: attribute_rows(user_attrs), tables.trial_values: value_rows(values)},
            trial_id=trial_id,
        )


def sqlite_file(storage: RDBStorage) -> Path | None:
    """Return the file of an SQLite storage, or None for other storages."""
    url = storage.engine.url
    database = url.database if url.get_backend_name() == "sqlite" else None
    return resolved(Path(database)) if database and database != ":memory:" else None


def read_study_attributes(storage: RDBStorage, study_id: int, *prefixes: str) -> dict[str, Any]:
    """Return every system attribute of a study whose key has one of the prefixes."""
    columns = tables_of(storage.engine).study_system_attributes.c
    wanted = or_(*(columns.key.startswith(prefix, autoescape=True) for prefix in prefixes))
    return _of_study(storage, "study_system_attributes", study_id, wanted)


def study_ids(storage: RDBStorage) -> dict[str, int]:
    """Return the id of each study by its name."""
    columns = tables_of(storage.engine).studies.c
    with storage.engine.connect() as connection:
        return {str(name): key for name, key in connection.execute(select(columns.study_name, columns.study_id))}


def write_study_attributes(storage: RDBStorage, study_id: int, attributes: dict[str, Any]) -> None:
    """Write system attributes of a study in one transaction."""
    table = tables_of(storage.engine).study_system_attributes
    with storage.engine.begin() as connection:
        connection.execute(delete(table).where(table.c.study_id == study_id, table.c.key.in_(list(attributes))))
        _insert(connection, {table: attribute_rows(attributes)}, study_id=study_id)


def _insert(connection: Connection, rows: dict[Table, list[dict[str, Any]]], **owner: int) -> None:
    """Insert rows into each table, all of the same trial or study."""
    for table, entries in rows.items():
        if entries:
            connection.execute(insert(table), [{**owner, **entry} for entry in entries])


def _of_study(storage: RDBStorage, name: str, study_id: int, *conditions: ColumnElement[bool]) -> dict[str, Any]:
    """Return the attributes of a study in a table that meet the conditions."""
    tables = tables_of(storage.engine)
    columns = getattr(tables, name).c
    with storage.engine.connect() as connection:
        rows = connection.execute(
            select(columns.key, columns.value_json).where(columns.study_id == study_id, *conditions)
        ).all()
    try:
        return {key: parse(f"{name}, {key}", value, json.loads, "must be JSON") for key, value in rows}
    except DamagedError as error:
        raise RecordError("study", storage.get_study_name_from_id(study_id), f"is damaged: {error}") from None
