"""The run store: what one seeded run leaves behind, in one folder, written so that a crash at any instant loses little.

    run.json                what the run is: specification, recipe, data, seed, device; its digest names the folder
    spec.yaml, recipe.yaml  the same two, ready to be used again
    environment.json        versions and hardware, for each start that found others
    curves.csv              one row an epoch
    best.safetensors        weights of the epoch with the lowest validation loss
    checkpoint.safetensors  all that is needed to go on; only while the run is unfinished
    result.json             how it ended; only when it has
    test.json               what it did on the test set; only when that was opened for it
    test-scores.safetensors what it said of each test image, likewise

Every file is replaced atomically. All tables and figures come from here, never from live objects.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from budgetnet.common.documents import Document
from budgetnet.common.errors import BusyError, InputError, RecordError
from budgetnet.common.files import read_mapping, write_bytes, write_json, write_text, write_yaml
from budgetnet.runs.metrics import Scores
from budgetnet.runs.records import Epoch, RunIdentity, RunRecord, RunResult, TestResult

Read = TypeVar("Read", bound=Document)

VERSION = 1
"""Version of the run folder's format."""
_ANEW = "delete the run folder to train it anew"
_REMEDIES = {"test.json": "delete it to have the run judged anew"}
OPENINGS = "test-openings.jsonl"
"""The file among the run folders in which every opening of a test set is written down."""


class RunFolder:
    """One run's place on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.checkpoint = path / "checkpoint.safetensors"
        self._result = path / "result.json"
        self._test = path / "test.json"
        self._scores = path / "test-scores.safetensors"
        self._curves = path / "curves.csv"
        self._identity = path / "run.json"
        self._environment = path / "environment.json"

    @classmethod
    def of(cls, identity: RunIdentity, out: Path) -> RunFolder:
        """The folder of a run below ``out``, whether it exists yet or not.

        The digest decides: a network that was trained under another name is found under that name.
        """
        found = sorted(out.glob(f"*-{identity.short_digest}"))
        return cls(found[0] if found else out / identity.run_id)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes off the run, and clears away what a killed one left half written.

        Raises:
            BusyError: another process is training the run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                for part in self.path.glob(".*.part"):
                    part.unlink(missing_ok=True)
                yield
        except Timeout:
            raise BusyError("run folder", str(self.path), "another process is training this run") from None

    def begin(self, identity: RunIdentity) -> None:
        """Writes what the run is; ``run.json`` last, so that a folder that has it is whole.

        Raises:
            RecordError: the folder belongs to another run.
        """
        if self._identity.exists():
            found = self._read_identity()
            if found.digest != identity.digest:
                raise RecordError("run folder", str(self.path), "belongs to another run")
            return
        write_yaml(self.path / "spec.yaml", identity.spec.to_mapping())
        write_yaml(self.path / "recipe.yaml", identity.recipe.to_mapping())
        write_json(self._identity, identity.to_mapping())

    def note_environment(self, environment: dict[str, Any], *, first_epoch: int) -> None:
        """Writes down where training goes on, if that is not where it was."""
        entries = read_mapping(self._environment)["starts"] if self._environment.exists() else []
        if not entries or {**entries[-1], "first_epoch": first_epoch} != {**environment, "first_epoch": first_epoch}:
            write_json(self._environment, {"starts": [*entries, {"first_epoch": first_epoch, **environment}]})

    def recorded_threads(self) -> int | None:
        """Return torch's number of threads in the first epochs of a run with a checkpoint; None for any other run.

        The last bits of sums depend on it, so that a resumed run must have the same number to end in the same bits.
        """
        if not (self.checkpoint.exists() and self._environment.exists()):
            return None
        threads = read_mapping(self._environment)["starts"][0].get("threads")
        return threads if isinstance(threads, int) and threads > 0 else None

    def write_curves(self, curves: list[Epoch]) -> None:
        """Writes the curves so far."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Epoch._fields)
        writer.writerows(curves)
        write_text(self._curves, text.getvalue())

    def finish(self, result: RunResult) -> None:
        """Writes how the run ended, and gives back the disk that only going on would need."""
        write_json(self._result, result.to_mapping())
        self.checkpoint.unlink(missing_ok=True)

    def write_test(self, test: TestResult) -> None:
        """Writes what the run's network did on the test set."""
        write_json(self._test, test.to_mapping())

    def write_scores(self, scores: Scores) -> None:
        """Writes what the run's network said of each test image, in the data set's order."""
        write_bytes(self._scores, save({"probabilities": scores.probabilities, "labels": scores.labels}))

    def read_scores(self) -> Scores | None:
        """What the run's network said of each test image; none where that was not kept.

        Raises:
            RecordError: the file is damaged.
        """
        if not self._scores.exists():
            return None
        try:
            tensors = load_file(self._scores)
            return Scores(probabilities=tensors["probabilities"], labels=tensors["labels"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            rule = f"are damaged ({error}); delete them and test.json to have the run judged anew"
            raise RecordError("kept scores", str(self._scores), rule) from None

    def reopen(self) -> None:
        """Takes the end back of a run that was stopped before its time; what only going on needs is gone."""
        self._result.unlink(missing_ok=True)

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self._result.exists()

    def load(self, *, weights: bool = True) -> RunRecord:
        """Reads a finished run back.

        Args:
            weights: whether the best epoch's weights must be there, as they need not for what only shows numbers.

        Raises:
            RecordError: the folder is no run, is unfinished or damaged, or was made by a newer version.
        """
        identity = self._read_identity()
        if not self.finished:
            raise RecordError("run folder", str(self.path), "is unfinished: result.json is missing")
        result, curves = self._read(self._result, RunResult), tuple(self.read_curves())
        if result.epochs and not self._curves.exists():
            raise RecordError("run folder", str(self.path), f"is damaged: curves.csv is missing; {_ANEW}")
        if len(curves) != result.epochs:
            raise RecordError(
                str(self._curves), len(curves), f"is damaged: must have a row for each of {result.epochs} epochs"
            )
        if weights and result.best_epoch is not None and not self.best.exists():
            raise RecordError("run folder", str(self.path), "keeps no network: best.safetensors is missing")
        test = self._read(self._test, TestResult) if self._test.exists() else None
        return RunRecord(self.path, identity, result, curves, test)

    def _read_identity(self) -> RunIdentity:
        if not self._identity.exists():
            raise RecordError("run folder", str(self.path), "holds no run: run.json is missing")
        return self._read(self._identity, RunIdentity)

    def _read(self, path: Path, kind: type[Read]) -> Read:
        try:
            mapping = read_mapping(path)
            version = mapping.get("schema_version")
            if isinstance(version, int) and version > VERSION:
                rule = f"was made by a newer budgetnet; this one reads version {VERSION}"
                raise RecordError(str(path), version, rule)
            return kind.from_mapping(mapping)
        except RecordError:
            raise
        except InputError as error:
            rule = f"is damaged: {error.field} {error.rule}; {_REMEDIES.get(path.name, _ANEW)}"
            raise RecordError(str(path), error.value, rule) from None

    def read_curves(self) -> list[Epoch]:
        """Reads the curves so far; empty before the first epoch has ended.

        Raises:
            RecordError: the file is damaged.
        """
        if not self._curves.exists():
            return []
        try:
            with self._curves.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            return [
                Epoch(int(row["epoch"]), int(row["cycle"]), *(float(row[key]) for key in Epoch._fields[2:]))
                for row in rows
            ]
        except (KeyError, TypeError, ValueError, csv.Error):
            rule = f"is damaged: a row or a column is cut off or no number; {_ANEW}"
            raise RecordError("curves", str(self._curves), rule) from None
