"""Cache of the decoded images of a folder, one file per folder, verified by a fingerprint."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import is_out_of_memory
from budgetnet.common.files import atomic_write, cache_folder

Images = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)


def cache_file(folder: Path) -> Path | None:
    """Return the path of the cache file of a folder; None without a cache directory."""
    root = cache_folder()
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    return root / "folders" / f"{digest[:32]}.npz" if root else None


def read_cache(path: Path, *, key: str) -> tuple[dict[str, Images], str] | None:
    """Return the cached images and their fingerprint; None if there is no valid file with this key.

    The caller verifies the fingerprint, which also covers labels; these are not cached.

    Args:
        path: path of the cache file.
        key: key of the folder's content.

    Returns:
        ``train`` and ``test`` images, uint8 (n, channels, height, width), and a fingerprint.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if str(archive["key"]) != key:
                return None
            images = {part: archive[f"{part}_images"] for part in ("train", "test")}
            fingerprint = str(archive["fingerprint"])
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy and zipfile raise many kinds of exceptions for damaged files
        if is_out_of_memory(error):
            raise
        _log.info("the cache %s cannot be read and will be written again: %s", path, error)
        return None
    if any(array.ndim != 4 for array in images.values()):
        return None
    return images, fingerprint


def write_cache(path: Path, *, key: str, images: dict[str, Images], fingerprint: str) -> None:
    """Write decoded images atomically; log a warning if the file cannot be written."""
    try:
        with atomic_write(path) as stream:
            np.savez(
                stream,
                allow_pickle=False,
                key=np.array(key),
                fingerprint=np.array(fingerprint),
                train_images=images["train"],
                test_images=images["test"],
            )
    except OSError as error:
        _log.warning(
            "the decoded images cannot be written to %s and will be decoded again by the next load: %s", path, error
        )
