"""Decoded images of a folder, kept in one file that is trusted only after its fingerprint has been checked."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from budgetnet.common.files import cache_root, replacing

Images = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)


def cache_file(folder: Path) -> Path | None:
    """Where the decoded images of a folder are kept, one file for each folder; None when there is no such place."""
    root = cache_root()
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    return root / "folders" / f"{digest[:32]}.npz" if root else None


def read_cache(path: Path, *, key: str) -> tuple[dict[str, Images], str] | None:
    """The images and the fingerprint they had when they were kept, or None without a file or one for another key.

    The fingerprint is for the caller to compare: it covers labels too, which are not kept here.

    Args:
        path: the cache file.
        key: what the content must have been made from.

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
    except Exception as error:  # numpy and zipfile answer broken bytes with nearly any exception
        _log.info("the cache %s cannot be read and is made anew: %s", path, error)
        return None
    if any(array.ndim != 4 for array in images.values()):
        return None
    return images, fingerprint


def write_cache(path: Path, *, key: str, images: dict[str, Images], fingerprint: str) -> None:
    """Keeps decoded images; a reader finds the old file or the new one, whole. Where it cannot, it only logs that."""
    try:
        with replacing(path) as stream:
            np.savez(
                stream,
                allow_pickle=False,
                key=np.array(key),
                fingerprint=np.array(fingerprint),
                train_images=images["train"],
                test_images=images["test"],
            )
    except OSError as error:
        _log.warning("the decoded images cannot be kept in %s, the next load decodes them again: %s", path, error)
