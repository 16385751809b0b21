"""Copies: images of a data set with exactly the same pixels."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

NOTABLE = 0.01
"""Share of copies from which they are named, and kept on one side of a split."""


def _keys(images: npt.NDArray[np.uint8]) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def groups_of_copies(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64] | None:
    """Return the index of the first image with the same pixels for each image; None if less than 1 % are copies.

    Args:
        images: uint8 (n, channels, height, width).
    """
    first: dict[bytes, int] = {}
    groups = np.array([first.setdefault(key, index) for index, key in enumerate(_keys(images))], dtype=np.int64)
    return groups if len(images) - len(first) >= NOTABLE * len(images) else None


def copies_remark(train: npt.NDArray[np.uint8], test: npt.NDArray[np.uint8]) -> str:
    """Return a remark on test images that are also training images; empty if less than 1 % are.

    Args:
        train: training images, uint8 (n, channels, height, width).
        test: test images.
    """
    known = set(_keys(train))
    count = sum(key in known for key in _keys(test))
    if count < max(1, NOTABLE * len(test)):
        return ""
    return f"; {count:,} of {len(test):,} test images are also training images, so test accuracy is too high"


def validation_remark(
    groups: npt.NDArray[np.int64] | None, *, train: npt.NDArray[np.int64], validation: npt.NDArray[np.int64]
) -> str:
    """Return a remark on validation images that are also training images; empty if less than 1 % are.

    Args:
        groups: as of `groups_of_copies`.
        train: indices of the training images.
        validation: indices of the validation images.
    """
    count = 0 if groups is None else int(np.isin(groups[validation], groups[train]).sum())
    if count < max(1, NOTABLE * len(validation)):
        return ""
    return (
        f"; {count:,} of {len(validation):,} validation images are also training images (leaking), so validation "
        "accuracy is too high"
    )
