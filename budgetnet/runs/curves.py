"""Learning curves of a run as CSV text, one row per epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from budgetnet.runs.records import Epoch


def format_curves(curves: Iterable[Epoch]) -> str:
    """Return the metrics of epochs as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Epoch._fields)
    writer.writerows(curves)
    return text.getvalue()


def parse_curves(text: str) -> list[Epoch]:
    """Return the metrics of the epochs in CSV text.

    Raises:
        ValueError: a row or column is incomplete or not a number.
    """
    try:
        return [
            Epoch(int(row["epoch"]), int(row["cycle"]), *(float(row[key]) for key in Epoch._fields[2:]))
            for row in csv.DictReader(io.StringIO(text, newline=""))
        ]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise ValueError("a row or column is incomplete or not a number") from None
