"""Images in a folder from which worker processes load them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from budgetnet.data.training_data import TrainingData

_PREFIX = ".data-"


@contextmanager
def shared_data(data: TrainingData, *, out: Path) -> Iterator[Path]:
    """Write images to a new folder in ``out``, removed at the end, and remove those that killed processes left.

    Args:
        data: training and validation images.
        out: folder of run folders.
    """
    out.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=out))
    try:
        with FileLock(_lock(folder)):
            data.share(folder)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> Path:
    return folder / ".lock"


def _remove_abandoned(out: Path) -> None:
    for folder in out.glob(f"{_PREFIX}*"):
        # A folder without a lock file was made by another process just now.
        if _lock(folder).exists():
            try:
                with FileLock(_lock(folder), timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
            except Timeout:
                pass
