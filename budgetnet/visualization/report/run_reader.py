"""Run folders read one after the other, where a damaged one must not take the others with it."""

from __future__ import annotations

from pathlib import Path

from budgetnet.common.errors import RecordError
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder


class Reader:
    """Reads run folders once each, and keeps which of them cannot be read, and why."""

    def __init__(self) -> None:
        self.left_out: dict[Path, str] = {}
        """Why each folder that is damaged was left out."""
        self._read: dict[Path, RunRecord | None] = {}

    def read(self, path: Path) -> RunRecord | None:
        """The record of a finished run, with its weights or without; none where it is unfinished or damaged."""
        if path not in self._read:
            self._read[path] = self._load(path)
        return self._read[path]

    def read_all(self, folder: Path) -> list[RunRecord]:
        """The finished runs below a folder, by name."""
        found = (self.read(path.parent) for path in sorted(folder.glob("*/run.json")))
        return [record for record in found if record is not None]

    def _load(self, path: Path) -> RunRecord | None:
        folder = RunFolder(path)
        try:
            if not folder.finished and path.is_dir():
                return None
            return folder.load(weights=False)
        except RecordError as error:
            self.left_out[path] = " ".join(str(error).split())
        except OSError as error:
            self.left_out[path] = error.strerror or str(error)
        return None
