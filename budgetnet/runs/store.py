"""Run folders: all files of one training run, written atomically so that a crash loses at most the current epoch.

    run.json                identity of the run: spec, recipe, data, seed, device; its digest is in the folder's name
    spec.yaml, recipe.yaml  spec and recipe as separate files
    environment.json        versions and hardware, one entry per start in a different environment
    curves.csv              metrics, one row per epoch
    confusion.csv           confusion matrix of the validation images; only in finished runs, up to 100 classes
    best.safetensors        weights of the epoch with the lowest validation loss
    checkpoint.safetensors  state needed to resume; only in unfinished runs
    result.json             result; only in finished runs
    test.json               metrics on the test set; only in runs evaluated on it
    test-scores.safetensors predicted probabilities of each test image; only in runs evaluated on the test set
    pruned/epoch-N/         record of the run as it was pruned after epoch N; only in runs that were trained on since

All tables and figures are made from these files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from budgetnet.common.documents import Document
from budgetnet.common.errors import BusyError, InputError, RecordError
from budgetnet.common.files import (
    exists,
    read_mapping,
    remove_partial_files,
    write_bytes,
    write_json,
    write_text,
    write_yaml,
)
from budgetnet.runs.curves import format_curves, parse_curves
from budgetnet.runs.environment import read_starts
from budgetnet.runs.metrics import Scores
from budgetnet.runs.records import Epoch, RunIdentity, RunRecord, RunResult, TestResult

Read = TypeVar("Read", bound=Document)

VERSION = 1
"""Version of the run folder's format."""
_LOOKING_SECONDS = 0.2
"""Longest time for which a run may be locked by a process that only looks whether it is free."""
_RETRAIN = "delete the run folder to train the run again"
_REMEDIES = {
    "test.json": "delete it to evaluate the run again",
    "environment.json": "delete it to resume without the record of earlier starts",
}
_PRUNED = "pruned"
"""Subfolder of a run that was trained on after a search had pruned it, with the records of the pruned run."""
TEST_OPENINGS_FILE = "test-openings.jsonl"
"""Name of the log of test-set openings, which lies next to the run folders."""


class RunFolder:
    """Folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.checkpoint = path / "checkpoint.safetensors"
        self._result = path / "result.json"
        self._test = path / "test.json"
        self._scores = path / "test-scores.safetensors"
        self._curves = path / "curves.csv"
        self._confusion = path / "confusion.csv"
        self._identity = path / "run.json"
        self._documents = path / "spec.yaml", path / "recipe.yaml"
        self._environment = path / "environment.json"

    @classmethod
    def of(cls, identity: RunIdentity, out: Path) -> RunFolder:
        """Return the folder of a run in ``out``, which need not exist.

        An existing folder is found by its digest, even if the network was trained under another name.
        """
        found = sorted(out.glob(f"*-{identity.short_digest}"))
        return cls(found[0] if found else out / identity.run_id)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against other processes and delete partial files of killed ones.

        Those in the folder of a finished run are kept: another process may be evaluating it.

        Raises:
            BusyError: another process is training the run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=_LOOKING_SECONDS):
                if not self.finished:
                    remove_partial_files(self.path)
                yield
        except Timeout:
            raise BusyError("run folder", str(self.path), "another process is training this run") from None

    def is_free(self, *, within: float = 0.0) -> bool:
        """Return whether no process is training the run, waiting up to a number of seconds for one to end."""
        if not self.path.is_dir():
            return True
        try:
            with FileLock(self.path / ".lock", timeout=within):
                return True
        except Timeout:
            return False

    def begin(self, identity: RunIdentity) -> None:
        """Write the identity of the run, ``run.json`` last so that its presence implies the other files.

        Raises:
            RecordError: the folder belongs to another run.
        """
        if self._identity.exists():
            found = self._read_identity()
            if found.digest != identity.digest:
                raise RecordError("run folder", str(self.path), "belongs to another run")
            return
        for file, document in zip(self._documents, (identity.spec, identity.recipe), strict=True):
            write_yaml(file, document.to_mapping())
        write_json(self._identity, identity.to_mapping())

    def record_environment(self, environment: dict[str, Any], *, first_epoch: int) -> None:
        """Append the environment in which training continues, unless it is that of the last entry.

        Raises:
            RecordError: the file is damaged.
        """
        entries = self._starts()
        if not entries or {**entries[-1], "first_epoch": first_epoch} != {**environment, "first_epoch": first_epoch}:
            write_json(self._environment, {"starts": [*entries, {"first_epoch": first_epoch, **environment}]})

    def recorded_threads(self) -> int | None:
        """Return the most torch threads with which an unfinished run was trained; None without a checkpoint.

        Rounding of sums depends on it, so a resumed run needs the same number to give bit-identical results.

        Raises:
            RecordError: the file is damaged.
        """
        if not self.checkpoint.exists():
            return None
        counts = [start.get("threads") for start in self._starts()]
        return max((count for count in counts if isinstance(count, int) and count > 0), default=None)

    def _starts(self) -> list[dict[str, Any]]:
        try:
            return read_starts(self._environment) if self._environment.exists() else []
        except InputError as error:
            raise _damaged(self._environment, error) from None

    def require_begun(self) -> None:
        """Check that the folder has not been deleted while the run is trained.

        Raises:
            RecordError: it has.
        """
        if not self._identity.exists():
            rule = "was deleted while the run was trained; the same command trains it from the start"
            raise RecordError("run folder", str(self.path), rule)

    def write_curves(self, curves: list[Epoch]) -> None:
        """Write the metrics of all epochs so far."""
        write_text(self._curves, format_curves(curves))

    def finish(self, result: RunResult, *, confusion: list[list[int]] | None = None) -> None:
        """Write the result, with the confusion matrix of the validation images if known, and delete the checkpoint."""
        if confusion is not None:
            lines = (",".join(map(str, row)) for row in confusion)
            write_text(self._confusion, "".join(f"{line}\n" for line in lines))
        write_json(self._result, result.to_mapping())
        self.checkpoint.unlink(missing_ok=True)

    def write_test(self, test: TestResult) -> None:
        """Write the metrics on the test set."""
        write_json(self._test, test.to_mapping())

    def write_scores(self, scores: Scores) -> None:
        """Write the predicted probabilities of all test images, in the order of the data set."""
        write_bytes(self._scores, save({"probabilities": scores.probabilities, "labels": scores.labels}))

    def read_scores(self) -> Scores | None:
        """Return the predicted probabilities of all test images; None if they were not saved.

        Raises:
            RecordError: the file is damaged.
        """
        if not self._scores.exists():
            return None
        try:
            tensors = load_file(self._scores)
            return Scores(probabilities=tensors["probabilities"], labels=tensors["labels"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            rule = f"are damaged ({error}); delete them and test.json to evaluate the run again"
            raise RecordError("test scores", str(self._scores), rule) from None

    def reopen(self) -> None:
        """Delete the result of a pruned run so that it is trained again, from the start as it has no checkpoint.

        The record stays, see `pruned_after`: it is the evidence of the study that pruned the run.

        Raises:
            RecordError: the result is damaged.
        """
        kept = self.pruned_after(self._read(self._result, RunResult).epochs)
        if not kept.finished:
            kept.path.mkdir(parents=True, exist_ok=True)
            # The result last, as its presence implies the other files.
            for file in (*self._documents, self._identity, self._curves, self._environment, self._result):
                if file.exists():
                    write_bytes(kept.path / file.name, file.read_bytes())
        self._result.unlink()

    def pruned_after(self, epochs: int) -> RunFolder:
        """Return the folder of the record of this run as it was pruned after some epochs, if it was trained on since.

        Without such a record, the folder does not exist.
        """
        return RunFolder(self.path / _PRUNED / f"epoch-{epochs}")

    def read_confusion(self, result: RunResult) -> list[list[int]] | None:
        """Return the confusion matrix of the validation images: true classes in rows, predicted ones in columns.

        Args:
            result: the run's result, with whose counts the matrix must agree.

        Returns:
            The matrix; None if it was not stored.

        Raises:
            RecordError: the file is damaged.
        """
        if not self._confusion.exists():
            return None
        try:
            lines = self._confusion.read_text(encoding="utf-8").splitlines()
            matrix = [[int(cell) for cell in line.split(",")] for line in lines]
        except OSError as error:
            raise RecordError("confusion matrix", str(self._confusion), f"cannot be read: {error.strerror}") from None
        except ValueError:
            matrix = []
        correct = sum(row[place] for place, row in enumerate(matrix) if place < len(row))
        images = sum(map(sum, matrix))
        counts = all(len(row) == len(matrix) and min(row) >= 0 for row in matrix)
        if not counts or (correct, images) != (result.validation_correct, result.validation_images):
            rule = f"is damaged: does not count the run's {result.validation_images} validation images; delete it"
            raise RecordError("confusion matrix", str(self._confusion), rule)
        return matrix

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return self._result.exists()

    def load(self, *, weights: bool = True) -> RunRecord:
        """Load the record of a finished run.

        Args:
            weights: whether to require the weights of the best epoch.

        Raises:
            RecordError: the folder contains no run, or one that is unfinished, damaged or written by a newer version.
        """
        identity = self._read_identity()
        if not self.finished:
            raise RecordError("run folder", str(self.path), "is unfinished: result.json is missing")
        result, curves = self._read(self._result, RunResult), tuple(self.read_curves())
        if result.epochs and not self._curves.exists():
            raise RecordError("run folder", str(self.path), f"is damaged: curves.csv is missing; {_RETRAIN}")
        if len(curves) != result.epochs:
            raise RecordError(
                str(self._curves), len(curves), f"is damaged: must have one row for each of {result.epochs} epochs"
            )
        if weights and result.best_epoch is not None and not self.best.exists():
            raise RecordError("run folder", str(self.path), "contains no weights: best.safetensors is missing")
        test = self._read(self._test, TestResult) if self._test.exists() else None
        return RunRecord(self.path, identity, result, curves, test)

    def _read_identity(self) -> RunIdentity:
        if not exists(self._identity):
            rule = "contains no run: run.json is missing" if exists(self.path) else "no such folder"
            raise RecordError("run folder", str(self.path), rule)
        return self._read(self._identity, RunIdentity)

    def _read(self, path: Path, kind: type[Read]) -> Read:
        try:
            mapping = read_mapping(path)
            version = mapping.get("schema_version")
            if isinstance(version, int) and version > VERSION:
                rule = f"was written by a newer version of budgetnet; this one reads version {VERSION}"
                raise RecordError(str(path), version, rule)
            return kind.from_mapping(mapping)
        except RecordError:
            raise
        except InputError as error:
            raise _damaged(path, error) from None

    def read_curves(self) -> list[Epoch]:
        """Return the metrics of all epochs so far.

        Raises:
            RecordError: the file is damaged.
        """
        if not self._curves.exists():
            return []
        try:
            return parse_curves(self._curves.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecordError("curves", str(self._curves), f"cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise RecordError("curves", str(self._curves), f"is damaged: {error}; {_RETRAIN}") from None


def _damaged(path: Path, error: InputError) -> RecordError:
    rule = f"is damaged: {error.field} {error.rule}; {_REMEDIES.get(path.name, _RETRAIN)}"
    return RecordError(str(path), error.value, rule)
