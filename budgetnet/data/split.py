"""The fixed split of the training images into a part to learn from and a part to choose by."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import DataError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Which training images are learnt from and which are held back for validation; never one in both."""

    train: Indices
    """Positions of the images learnt from (n,), ascending."""

    validation: Indices
    """Positions of the images held back (n,), ascending."""

    fingerprint: str
    """SHA-256 of both, so that two records can be told to rest on the same split."""


def split(
    labels: npt.NDArray[Any],
    *,
    validation_fraction: float,
    seed: int,
    train_size: int | None = None,
    validation_size: int | None = None,
) -> Split:
    """Splits training images at random, fixed by the seed, with every class in proportion.

    The sizes take a subset of one part and leave the other as it is; a smaller subset lies within every larger one of
    the same seed. So runs with different amounts of training images are judged by the same validation images.

    Args:
        labels: class number of each training image (n,).
        validation_fraction: the part held back, between 0 and 1, rounded up to whole images.
        seed: 0 to 2**32 - 1.
        train_size: how many images to learn from, at least one a class; None for all that are not held back.
        validation_size: how many of those held back to use, at least one a class; None for all of them.

    Raises:
        DataError: the fraction, a size or the seed is out of range, or a class has too few images to be split.
    """
    if not 0 < validation_fraction < 1:
        raise DataError("validation_fraction", validation_fraction, "must lie between 0 and 1, both excluded")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise DataError("seed", seed, "must be a whole number from 0 to 2**32 - 1")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DataError("labels", labels.shape, "must be whole numbers, one for each image")
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(counts.argmin())
    if counts[rarest] < 2:
        raise DataError("labels", int(classes[rarest]), "each class needs at least 2 images to be split, this has 1")
    # Exact, because 100 * 0.07 is a little more than 7 in floating point.
    held_back = math.ceil(len(labels) * Fraction(str(float(validation_fraction))))
    if not len(classes) <= held_back <= len(labels) - len(classes):
        rule = f"must leave both parts of {len(labels)} images at least one for each of {len(classes)} classes"
        raise DataError("validation_fraction", validation_fraction, rule)

    from sklearn.model_selection import train_test_split

    train, validation = (
        np.sort(part).astype(np.int64)
        for part in train_test_split(
            np.arange(len(labels)), test_size=held_back, stratify=labels, random_state=int(seed)
        )
    )
    if len(np.unique(labels[train])) < len(classes):
        rule = "leaves a class without training images; hold back less"
        raise DataError("validation_fraction", validation_fraction, rule)
    train = _subset(train, labels, size=train_size, field="train_size", seed=seed)
    validation = _subset(validation, labels, size=validation_size, field="validation_size", seed=seed)
    digest = hashlib.sha256(f"budgetnet split 1, {len(train)} and {len(validation)}\n".encode())
    for part in (train, validation):
        part.flags.writeable = False
        digest.update(part.astype("<i8").tobytes())
    return Split(train=train, validation=validation, fingerprint=digest.hexdigest())


def _subset(part: Indices, labels: npt.NDArray[Any], *, size: int | None, field: str, seed: int) -> Indices:
    """The first ``size`` images of a fixed order in which every beginning holds the classes in proportion.

    scikit-learn's splitter would neither nest the subsets nor leave out fewer images than there are classes.
    """
    if size is None:
        return part
    classes, class_of, counts = np.unique(labels[part], return_inverse=True, return_counts=True)
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not whole or not len(classes) <= size <= len(part):
        rule = f"must be {len(classes)} (one image a class) to {len(part)} (all there are in this part)"
        raise DataError(field, size, rule)
    # RandomState, unlike Generator, promises the same numbers in every version of numpy.
    shuffled = np.random.RandomState(seed).permutation(len(part))
    by_class = shuffled[np.argsort(class_of[shuffled], kind="stable")]
    rank = np.arange(len(part)) - np.repeat(np.cumsum(counts) - counts, counts)
    # The k-th image of a class comes when (k + 1/2) / count of the whole is reached; the first one straight away.
    due = np.where(rank == 0, 0.0, (rank + 0.5) / np.repeat(counts, counts))
    tie_break = np.empty(len(part), dtype=np.int64)
    tie_break[shuffled] = np.arange(len(part))
    order = np.lexsort((tie_break[by_class], due))
    return np.sort(part[by_class[order[:size]]])
