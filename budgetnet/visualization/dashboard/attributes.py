"""System attributes of studies, in which optuna-dashboard stores notes and figures, written in one transaction."""

from __future__ import annotations

from typing import Any

from optuna.storages import RDBStorage

from budgetnet.study.bulk import read_study_attributes, write_study_attributes


class Attributes:
    """A subset of a study's system attributes; changes are written atomically by `commit`.

    It stands in for Optuna's storage in functions of optuna-dashboard, and `page` for the study or a trial. With
    Optuna's own storage these functions read a whole study twice for each note, and can leave partial notes.
    """

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        """Prepare access to the attributes, without reading any.

        Args:
            storage: storage of the study.
            study_id: id of the study in the storage.
        """
        self._storage, self._study_id = storage, study_id
        self._known: dict[str, Any] = {}
        self._written: dict[str, Any] = {}

    def read(self, *prefixes: str) -> dict[str, Any]:
        """Read every attribute whose key has one of the prefixes, and discard earlier values and pending changes."""
        self._known = read_study_attributes(self._storage, self._study_id, *prefixes)
        self._written = {}
        return dict(self._known)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: ARG002 - signature of Optuna
        """Return the attributes that were read or set."""
        return dict(self._known)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ARG002 - same
        """Set an attribute; written by `commit`."""
        if self._known.get(key) != value:
            self._known[key] = self._written[key] = value

    def write(self, key: str, value: Any) -> None:
        """Set an attribute; written by `commit`."""
        self.set_study_system_attr(self._study_id, key, value)

    def commit(self) -> None:
        """Write all changes to the storage in one transaction."""
        write_study_attributes(self._storage, self._study_id, self._written)
        self._written = {}

    def page(self, trial_id: int | None = None) -> Any:
        """Return a stand-in for the study or a trial, to pass to functions of optuna-dashboard."""
        return _Page(self, self._study_id, trial_id)


class _Page:
    """Stand-in for an `optuna.Study`, or with a trial's id for an `optuna.Trial`."""

    def __init__(self, attributes: Attributes, study_id: int, trial_id: int | None) -> None:
        self.storage = self._storage = attributes
        self.study = self
        self._study_id, self._trial_id = study_id, trial_id
