"""Sealed test set: access to its images requires an opening, which is logged first."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import DataError


class SealedTestSet:
    """Test images and labels, accessible only through a logged opening.

    Search, early stopping and ranking use validation images only; the test set is for final results. The seal protects
    against accidental use, not against access to private attributes.
    """

    __slots__ = ("__images", "__labels", "_fingerprint")

    def __init__(self, *, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], fingerprint: str) -> None:
        self.__images = images
        self.__labels = labels
        self._fingerprint = fingerprint

    def __repr__(self) -> str:
        return f"SealedTestSet(count={self.count})"

    @property
    def count(self) -> int:
        """Number of test images."""
        return len(self.__labels)

    def relabelled(self, numbers: Sequence[int]) -> SealedTestSet:
        """Return the same images with other class numbers.

        Args:
            numbers: new number of each class, by its present number.
        """
        labels = np.asarray(numbers, dtype=np.int64)[self.__labels]
        labels.flags.writeable = False
        return SealedTestSet(images=self.__images, labels=labels, fingerprint=self._fingerprint)

    def open(
        self, *, reason: str, by: str, log: Path, runs: Sequence[str] = ()
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Log the opening, flushed to disk, and return the arrays.

        Args:
            reason: reason for opening the test set.
            by: who opens it, for example the name of a run.
            log: JSON Lines file to which the opening is appended; created with its parent folders if missing.
            runs: names of the run folders for which it is opened.

        Returns:
            Images uint8 (n, channels, height, width) and labels int64 (n,), both read-only.

        Raises:
            DataError: ``reason`` or ``by`` is blank, or the log cannot be written; the test set then stays sealed.
        """
        for field, text in (("reason", reason), ("by", by)):
            if not text.strip():
                raise DataError(field, text, "must not be blank: it is written to the log of test-set openings")
        opening = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),  # noqa: UP017 - explicit UTC
            "reason": reason,
            "by": by,
            "fingerprint": self._fingerprint,
            "count": self.count,
            **({"runs": list(runs)} if runs else {}),
        }
        try:
            _append_line(log, json.dumps(opening))
        except OSError as error:
            rule = f"cannot be written ({error.strerror or error}), so the test set stays sealed"
            raise DataError("log", str(log), rule) from None
        return self.__images, self.__labels


def read_openings(log: Path) -> list[dict[str, Any]]:
    """Return all logged openings of a test set, oldest first; an empty list without a log.

    Incomplete lines are skipped: their process died while writing and did not get the arrays.

    Raises:
        DataError: the log exists but cannot be read.
    """
    try:
        content = log.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError("log", str(log), f"cannot be read: {error.strerror}") from None
    openings = []
    for line in content.split(b"\n"):
        try:
            opening = json.loads(line)
        except ValueError:
            continue
        if isinstance(opening, dict):
            openings.append(opening)
    return openings


def _append_line(log: Path, text: str) -> None:
    """Append a line in a single write, safe for concurrent processes, and flush it to disk."""
    log.parent.mkdir(parents=True, exist_ok=True)
    is_new = not log.exists()
    descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        # An incomplete last line has no newline; appended to it, this line would be unreadable as well.
        size = os.lseek(descriptor, 0, os.SEEK_END)
        incomplete = False
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            incomplete = os.read(descriptor, 1) != b"\n"
        line = (("\n" if incomplete else "") + text + "\n").encode("utf-8")
        if os.write(descriptor, line) != len(line):
            raise OSError("only part of the line was written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new and os.name == "posix":
        folder = os.open(log.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
