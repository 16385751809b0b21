"""The sealed test set: its images can only be had by opening it, and every opening is written down first."""

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
    """Test images and labels that nobody sees without leaving a trace.

    Search, early stopping and ranking look at validation images only; the test set answers for finalists. The seal is
    not a lock against a determined reader of private attributes, but against looking without noticing.
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
        """How many test images there are."""
        return len(self.__labels)

    def open(
        self, *, reason: str, by: str, log: Path, runs: Sequence[str] = ()
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Writes the opening down, durably, and only then hands out the arrays.

        Args:
            reason: why the test set is opened, in words for whoever reads the log.
            by: who or what opens it, for example the name of a run.
            log: a file of one JSON object a line, appended to; it and its folders are created when missing.
            runs: names of the run folders that it is opened for, if it is for runs.

        Returns:
            Images uint8 (n, channels, height, width) and labels int64 (n,), both read-only.

        Raises:
            DataError: the reason or the name is blank, or the log cannot be written; the set then stays sealed.
        """
        for field, text in (("reason", reason), ("by", by)):
            if not text.strip():
                raise DataError(field, text, "must say something: it is kept with the opening of the test set")
        opening = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),  # noqa: UP017 - the words say UTC
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
    """Every recorded opening of a test set, oldest first; an empty list when there is no log yet.

    A line that is not whole is left out: it belongs to a process that died while writing, and was therefore never
    handed the arrays.

    Raises:
        DataError: the log is there and cannot be read.
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
    """Appends a line in a single write, so that several processes can share a log, and waits until it is on disk."""
    log.parent.mkdir(parents=True, exist_ok=True)
    is_new = not log.exists()
    descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        # A torn last line has no end; without a break before it, this line would be lost together with that one.
        size = os.lseek(descriptor, 0, os.SEEK_END)
        torn = False
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            torn = os.read(descriptor, 1) != b"\n"
        line = (("\n" if torn else "") + text + "\n").encode("utf-8")
        if os.write(descriptor, line) != len(line):
            raise OSError("the disk took only a part of the line")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new and os.name == "posix":
        folder = os.open(log.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
