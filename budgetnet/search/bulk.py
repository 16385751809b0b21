"""Whole trials written in one go: what Optuna's own calls write row by row, each with its look-ups, in tens of queries.

A candidate is written twice, when it begins and when it ends, each time in one transaction: a process that is killed
leaves a trial that says everything about its beginning or everything about its end.
"""

from __future__ import annotations

import functools
import json
from datetime import datetime, timezone
from typing import Any, NamedTuple

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, MetaData, Table, delete, func, insert, select, update


class _Tables(NamedTuple):
    """The tables of a storage that trials are written to, as they stand there."""

    studies: Table
    trials: Table
    trial_params: Table
    trial_values: Table
    trial_user_attributes: Table
    trial_system_attributes: Table
    trial_intermediate_values: Table
    trial_heartbeats: Table


@functools.lru_cache(maxsize=8)
def _tables(engine: Engine) -> _Tables:
    known = MetaData()
    known.reflect(engine, only=_Tables._fields)
    return _Tables(*(known.tables[name] for name in _Tables._fields))


class Written(NamedTuple):
    """Where a trial stands in the storage."""

    trial_id: int
    number: int


def insert_trial(storage: RDBStorage, study_id: int, trial: FrozenTrial) -> Written:
    """Writes a trial, whole, with a first heartbeat if it is running.

    Args:
        storage: where to.
        study_id: of its study there.
        trial: the trial, its values finite; number and id are given by the storage.
    """
    tables = _tables(storage.engine)
    with storage.engine.begin() as connection:
        if storage.engine.name != "sqlite":
            # Numbers are counted: two writers must not count at once. SQLite lets in one writer at a time anyway.
            locked = select(tables.studies.c.study_id).where(tables.studies.c.study_id == study_id).with_for_update()
            connection.execute(locked)
        row = {
            "study_id": study_id,
            "state": trial.state.name,
            "datetime_start": _utc(trial.datetime_start),
            "datetime_complete": _utc(trial.datetime_complete),
        }
        (trial_id,) = connection.execute(insert(tables.trials).values(**row)).inserted_primary_key or (0,)
        past = select(func.count()).where(tables.trials.c.study_id == study_id, tables.trials.c.trial_id < trial_id)
        number = int(connection.execute(past).scalar_one())
        connection.execute(update(tables.trials).where(tables.trials.c.trial_id == trial_id).values(number=number))
        rows: list[tuple[Table, list[dict[str, Any]]]] = [
            (tables.trial_params, _params(trial)),
            (tables.trial_user_attributes, _attributes(trial.user_attrs)),
            (tables.trial_system_attributes, _attributes(trial.system_attrs)),
            (tables.trial_intermediate_values, _intermediate(trial)),
            (tables.trial_values, _values(trial.value if trial.state == TrialState.COMPLETE else None)),
        ]
        for table, entries in rows:
            if entries:
                connection.execute(insert(table), [{"trial_id": trial_id, **entry} for entry in entries])
        if trial.state == TrialState.RUNNING:
            # By the storage's own clock, against which it is read.
            first = insert(tables.trial_heartbeats).values(trial_id=trial_id, heartbeat=func.current_timestamp())
            connection.execute(first)
    return Written(trial_id, number)


def close_trial(
    storage: RDBStorage, trial_id: int, *, state: TrialState, value: float | None, user_attrs: dict[str, Any]
) -> bool:
    """Ends a running trial; tells whether it was still running, else nothing is written.

    Args:
        storage: where it stands.
        trial_id: its id there.
        state: how it ends.
        value: its result, finite; None without one.
        user_attrs: what is to be known of its end.
    """
    tables = _tables(storage.engine)
    with storage.engine.begin() as connection:
        running = tables.trials.c.trial_id == trial_id, tables.trials.c.state == TrialState.RUNNING.name
        ended = {"state": state.name, "datetime_complete": _utc(datetime.now())}
        if connection.execute(update(tables.trials).where(*running).values(**ended)).rowcount != 1:
            return False
        kept = tables.trial_user_attributes
        connection.execute(delete(kept).where(kept.c.trial_id == trial_id, kept.c.key.in_(list(user_attrs))))
        rows = [(kept, _attributes(user_attrs)), (tables.trial_values, _values(value))]
        for table, entries in rows:
            if entries:
                connection.execute(insert(table), [{"trial_id": trial_id, **entry} for entry in entries])
    return True


def _utc(moment: datetime | None) -> datetime | None:
    """A local time without a zone, as Optuna keeps it in memory, as the time without a zone that it stores."""
    return None if moment is None else moment.astimezone(timezone.utc).replace(tzinfo=None)  # noqa: UP017 - as above


def _params(trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]


def _attributes(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _intermediate(trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {"step": step, "intermediate_value": value, "intermediate_value_type": "FINITE"}
        for step, value in trial.intermediate_values.items()
    ]


def _values(value: float | None) -> list[dict[str, Any]]:
    return [] if value is None else [{"objective": 0, "value": value, "value_type": "FINITE"}]
