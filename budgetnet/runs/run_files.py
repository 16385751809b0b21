"""Names of the files of a run folder."""

from __future__ import annotations

from pathlib import Path

from budgetnet.common.errors import InputError
from budgetnet.common.files import exists

IDENTITY = "run.json"
"""Present in every run folder."""
RUN_FILES = frozenset(
    {
        IDENTITY,
        *("spec.yaml", "recipe.yaml", "environment.json", "curves.csv", "confusion.csv", "result.json"),
        *("best.safetensors", "checkpoint.safetensors", "test.json", "test-scores.safetensors"),
    }
)
"""Names of the files that a run folder may have."""


def require_no_run_file(path: Path, *, field: str) -> None:
    """Check that a file to be written would not replace one of a run.

    Args:
        path: the file.
        field: name of the input in errors.

    Raises:
        InputError: it is a file of a run folder.
    """
    if path.name in RUN_FILES and exists(path.parent / IDENTITY):
        raise InputError(field, str(path), "must not be a file of a run, which would be lost")
