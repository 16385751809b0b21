"""Environments of a run: versions and hardware, one entry for each start in a different environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from budgetnet.common.errors import InputError
from budgetnet.common.files import read_mapping


def read_starts(path: Path) -> list[dict[str, Any]]:
    """Return the environment of each start of a run, with its first epoch.

    Raises:
        InputError: the file cannot be read, or contains no list of starts.
    """
    starts = read_mapping(path).get("starts")
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise InputError("starts", starts, "must be a list of mappings")
    return starts
