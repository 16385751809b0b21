"""Reader of run folders that skips damaged ones."""

from __future__ import annotations

from pathlib import Path

from budgetnet.common.errors import RecordError
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.visualization.report.content import Confusion


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

    def confusion(self, record: RunRecord) -> Confusion | None:
        """Return the confusion matrix of a run's test images or, if it was not evaluated on these, validation images.

        None if the run does not record it, as runs of older versions, or if the record is damaged.
        """
        folder, names = RunFolder(record.folder), record.identity.data.class_names
        try:
            scores = None if record.test is None else folder.read_scores()
            matrix = folder.read_confusion(record.result) if scores is None else scores.confusion().tolist()
        except RecordError as error:
            self.unreadable[record.folder] = " ".join(str(error).split())
            return None
        if matrix is None:
            return None
        part = (
            "test images" if scores is not None else "validation images, which also selected the network and its epoch"
        )
        if names is None or len(names) != len(matrix):
            names = tuple(map(str, range(len(matrix))))
        return Confusion(matrix, names, f"run {record.folder.name} on {sum(map(sum, matrix)):,} {part}")

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
