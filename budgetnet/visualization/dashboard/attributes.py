"""Where optuna-dashboard keeps what it shows beside trials: a study's system attributes, written all at once."""

from __future__ import annotations

import json
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import MetaData, Table, and_, delete, insert, or_, select


class Attributes:
    """Some of a study's system attributes; what is written waits for `commit`, and is then there whole or not at all.

    To optuna-dashboard's functions it is the storage, and by `page` the study or a trial: with Optuna's own they would
    read everything that is kept of a study twice for each note, and leave half a note behind when they are killed.
    """

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        """Nothing has been read yet.

        Args:
            storage: where the study lives.
            study_id: its id there.
        """
        self._engine, self._study_id = storage.engine, study_id
        self._table = Table("study_system_attributes", MetaData(), autoload_with=storage.engine)
        self._known: dict[str, Any] = {}
        self._written: dict[str, Any] = {}
        self._removed: set[str] = set()

    def read(self, *beginnings: str) -> dict[str, Any]:
        """Reads every attribute whose key begins so, and forgets what was known or waited before."""
        columns = self._table.c
        wanted = or_(*(columns.key.startswith(beginning, autoescape=True) for beginning in beginnings))
        query = select(columns.key, columns.value_json).where(columns.study_id == self._study_id, wanted)
        with self._engine.connect() as connection:
            self._known = {key: json.loads(value) for key, value in connection.execute(query)}
        self._written, self._removed = {}, set()
        return dict(self._known)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: ARG002 - of one study only
        """What is known of the study."""
        return dict(self._known)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ARG002 - likewise
        """Writes a value down, for `commit`."""
        if self._known.get(key) != value:
            self._known[key] = self._written[key] = value
        self._removed.discard(key)

    def write(self, key: str, value: Any) -> None:
        """Writes a value down, for `commit`."""
        self.set_study_system_attr(self._study_id, key, value)

    def remove(self, key: str) -> None:
        """Takes an attribute away, with `commit`."""
        self._known.pop(key, None)
        self._written.pop(key, None)
        self._removed.add(key)

    def commit(self) -> None:
        """Puts into the storage, in one transaction, what was written and removed."""
        columns, touched = self._table.c, [*self._written, *self._removed]
        rows = [
            {"study_id": self._study_id, "key": key, "value_json": json.dumps(value)}
            for key, value in self._written.items()
        ]
        with self._engine.begin() as connection:
            if touched:
                old = and_(columns.study_id == self._study_id, columns.key.in_(touched))
                connection.execute(delete(self._table).where(old))
            if rows:
                connection.execute(insert(self._table), rows)
        self._written, self._removed = {}, set()

    def page(self, trial_id: int | None = None) -> Any:
        """The study, or a trial of it, as far as optuna-dashboard looks at it to write a note or a figure."""
        return _Page(self, self._study_id, trial_id)


class _Page:
    """Has what is looked at in an `optuna.Study` and in an `optuna.Trial`; one without an id is the study."""

    def __init__(self, attributes: Attributes, study_id: int, trial_id: int | None) -> None:
        self.storage = self._storage = attributes
        self.study = self
        self._study_id, self._trial_id = study_id, trial_id
