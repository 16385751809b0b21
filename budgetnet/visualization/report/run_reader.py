"""Reader of run folders that skips damaged ones."""

from __future__ import annotations

from pathlib import Path

from budgetnet.common.errors import RecordError
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder


class Reader:
    """Cached reader of run folders that records which of them are unreadable."""

    def __init__(self) -> None:
        self.unreadable: dict[Path, str] = {}
        """Reason for each unreadable folder."""
        self._read: dict[Path, RunRecord | None] = {}

    def read(self, path: Path) -> RunRecord | None:
        """Return the record of a finished run; None if it is unfinished or damaged."""
        if path not in self._read:
            self._read[path] = self._load(path)
        return self._read[path]

    def read_all(self, folder: Path) -> list[RunRecord]:
        """Return the records of the finished runs in a folder, by name."""
        found = (self.read(path.parent) for path in sorted(folder.glob("*/run.json")))
        return [record for record in found if record is not None]

    def _load(self, path: Path) -> RunRecord | None:
        folder = RunFolder(path)
        try:
            if not folder.finished and path.is_dir():
                return None
            return folder.load(weights=False)
        except RecordError as error:
            self.unreadable[path] = " ".join(str(error).split())
        except OSError as error:
            self.unreadable[path] = error.strerror or str(error)
        return None
