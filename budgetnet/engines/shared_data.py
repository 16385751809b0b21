"""Folders that last as long as a process: of images from which worker processes load them, and of unfinished work."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from budgetnet.data.training_data import TrainingData

_PREFIX = ".data-"


@contextmanager
def shared_data(data: TrainingData, *, out: Path) -> Iterator[Path]:
    """Write images to a new folder in ``out``, removed at the end.

    Args:
        data: training and validation images.
        out: folder of run folders.
    """
    with own_folder(out, prefix=_PREFIX) as folder:
        data.share(folder)
        yield folder


@contextmanager
def own_folder(parent: Path, *, prefix: str) -> Iterator[Path]:
    """Make a new folder, removed at the end, and remove those that killed processes left.

    Args:
        parent: where to make it.
        prefix: beginning of its name.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with FileLock(_lock(folder)):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> Path:
    return folder / ".lock"


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        # It may be in use, or another user's.
        with suppress(Timeout, PermissionError):
            # A folder without a lock file was made by another process just now.
            if _lock(folder).exists():
                with FileLock(_lock(folder), timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
