"""Stratified split of the training images into training and validation images, fixed by a seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import DataError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Disjoint indices of training and validation images."""

    train: Indices
    """Indices of the training images (n,), ascending."""

    validation: Indices
    """Indices of the validation images (n,), ascending."""

    fingerprint: str
    """SHA-256, in hexadecimal, of both."""


def split(
    labels: npt.NDArray[Any],
    *,
    validation_fraction: float,
    seed: int,
    train_size: int | None = None,
    validation_size: int | None = None,
    groups: Indices | None = None,
    class_names: Sequence[str] | None = None,
) -> Split:
    """Split training images at random, stratified by class.

    Each size selects a subset of one part and does not change the other; a smaller subset is contained in every larger
    one of the same seed. Runs with different numbers of training images therefore share their validation images.

    Args:
        labels: class number of each training image (n,).
        validation_fraction: fraction held out for validation, between 0 and 1, rounded up to whole images.
        seed: seed of the split, from 0 to 2**32 - 1.
        train_size: number of training images, at least one per class; default: all that are not held out.
        validation_size: number of validation images, at least one per class; default: all that are held out.
        groups: group of each image (n,), by the index of its first image; a group stays on one side, so that the
            numbers of images are those of the fraction only nearly. Not used where there are too few
            groups. Default: every image by itself.
        class_names: name of each class, for errors. Default: its number.

    Raises:
        DataError: the fraction, a size or the seed is out of range, or a class has too few images to be split.
    """
    if not 0 < validation_fraction < 1:
        raise DataError("validation_fraction", validation_fraction, "must be between 0 and 1, both excluded")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise DataError("seed", seed, "must be a whole number from 0 to 2**32 - 1")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DataError("labels", labels.shape, "must be whole numbers, one for each image")
    sizes: dict[str, Any] = {"train_size": train_size, "validation_size": validation_size, "seed": seed}
    sides = (
        None if groups is None else _split_groups(labels, groups, validation_fraction=validation_fraction, seed=seed)
    )
    if sides is not None:
        return _finished(*sides, labels, **sizes)
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(counts.argmin())
    if counts[rarest] < 2:
        number = int(classes[rarest])
        rule = "each class needs at least 2 images, so that both parts of a split have one, this class has 1"
        raise DataError("class", number if class_names is None else class_names[number], rule)
    # As a fraction, because 100 * 0.07 is more than 7 in floating point.
    num_validation = math.ceil(len(labels) * Fraction(str(float(validation_fraction))))
    if not len(classes) <= num_validation <= len(labels) - len(classes):
        rule = f"must split {len(labels)} images so that both parts have at least {len(classes)}, one per class"
        raise DataError("validation_fraction", validation_fraction, rule)

    from sklearn.model_selection import train_test_split

    train, validation = (
        np.sort(part).astype(np.int64)
        for part in train_test_split(
            np.arange(len(labels)), test_size=num_validation, stratify=labels, random_state=int(seed)
        )
    )
    if len(np.unique(labels[train])) < len(classes):
        rule = "leaves a class without training images; use a smaller fraction"
        raise DataError("validation_fraction", validation_fraction, rule)
    return _finished(train, validation, labels, **sizes)


def _split_groups(
    labels: npt.NDArray[Any], groups: Indices, *, validation_fraction: float, seed: int
) -> tuple[Indices, Indices] | None:
    """Return both parts, with each group on one side; None if there are too few groups, of a class or in all."""
    firsts = np.unique(groups)
    try:
        parts = split(labels[firsts], validation_fraction=validation_fraction, seed=seed)
    except DataError:
        return None
    train, validation = (np.flatnonzero(np.isin(groups, firsts[part])) for part in (parts.train, parts.validation))
    classes = len(np.unique(labels))
    has_all = len(np.unique(labels[train])) == len(np.unique(labels[validation])) == classes
    return (train, validation) if has_all else None


def _finished(
    train: Indices,
    validation: Indices,
    labels: npt.NDArray[Any],
    *,
    train_size: int | None,
    validation_size: int | None,
    seed: int,
) -> Split:
    """Return the split of both parts, or of subsets of them."""
    train = _subset(train, labels, size=train_size, field="train_size", seed=seed)
    validation = _subset(validation, labels, size=validation_size, field="validation_size", seed=seed)
    digest = hashlib.sha256(f"budgetnet split 1, {len(train)} and {len(validation)}\n".encode())
    for part in (train, validation):
        part.flags.writeable = False
        digest.update(part.astype("<i8").tobytes())
    return Split(train=train, validation=validation, fingerprint=digest.hexdigest())


def _subset(part: Indices, labels: npt.NDArray[Any], *, size: int | None, field: str, seed: int) -> Indices:
    """Return the first ``size`` images of a fixed order, of which every prefix is stratified by class.

    scikit-learn's splitter does not nest subsets and cannot omit fewer images than there are classes.
    """
    if size is None:
        return part
    classes, class_of, counts = np.unique(labels[part], return_inverse=True, return_counts=True)
    is_integer = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not is_integer or not len(classes) <= size <= len(part):
        rule = f"must be from {len(classes)} (one image per class) to {len(part)} (all images of this part)"
        raise DataError(field, size, rule)
    # RandomState, unlike Generator, guarantees the same numbers in every version of numpy.
    shuffled = np.random.RandomState(seed).permutation(len(part))
    by_class = shuffled[np.argsort(class_of[shuffled], kind="stable")]
    rank = np.arange(len(part)) - np.repeat(np.cumsum(counts) - counts, counts)
    # The k-th image of a class is placed at (k + 1/2) / count of the order, the first one at the start.
    due = np.where(rank == 0, 0.0, (rank + 0.5) / np.repeat(counts, counts))
    tie_break = np.empty(len(part), dtype=np.int64)
    tie_break[shuffled] = np.arange(len(part))
    order = np.lexsort((tie_break[by_class], due))
    return np.sort(part[by_class[order[:size]]])
