"""Data set in memory: validated arrays, normalisation statistics, a fingerprint and the sealed test set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import DataError
from budgetnet.data.copies import copies_remark, groups_of_copies
from budgetnet.data.test_set import SealedTestSet

_log = logging.getLogger(__name__)

Element = TypeVar("Element", bound=np.generic)

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
"""Mean of CIFAR-10's training pixels in [0, 1], per channel, as in the published notebook."""

CIFAR10_STD = (0.2023, 0.1994, 0.2010)
"""Standard deviation per channel in the published notebook: a mean over images, lower than that of all pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """Classification data set in memory, with read-only arrays."""

    name: str
    """Name as given by the user: ``digits``, ``cifar10``, ``folder:PATH``, ``arrays:PATH.npz`` or another."""

    train_images: npt.NDArray[np.uint8] = field(repr=False)
    """Training images, uint8 (n, channels, height, width), contiguous."""

    train_labels: npt.NDArray[np.int64] = field(repr=False)
    """Class number of each training image (n,)."""

    class_names: tuple[str, ...]
    """Name of each class, in the order of the class numbers."""

    test: SealedTestSet
    """Test images and labels; every access to them is logged."""

    fingerprint: str
    """SHA-256, in hexadecimal, of all four arrays and the number of classes; independent of the name."""

    provenance: str
    """Source of the images, one sentence for reports."""

    is_original_cifar10: bool
    """Whether the data set is CIFAR-10, verified by checksums, so that published results are comparable."""

    mean: tuple[float, ...]
    """Mean of the training pixels scaled to [0, 1], per channel."""

    std: tuple[float, ...]
    """Standard deviation of the training pixels scaled to [0, 1], per channel; 1 if all pixels are equal."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image: (channels, height, width)."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    @cached_property
    def groups_of_copies(self) -> npt.NDArray[np.int64] | None:
        """Index of the first training image with the same pixels for each one; None if less than 1 % are copies."""
        return groups_of_copies(self.train_images)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        """Number of training images, including those of the validation split."""
        return len(self.train_labels)

    @property
    def num_test(self) -> int:
        """Number of test images."""
        return self.test.count


def declared_cifar10(dataset: DataSet, *, field: str) -> DataSet:
    """Return a copy of CIFAR-10, as declared by the user, with the normalisation of the original.

    Args:
        dataset: the copy; it is not marked as the original.
        field: name of the option with which the user declared it, for errors.

    Raises:
        DataError: number, shape or classes of the images are not those of CIFAR-10.
    """
    if dataset.is_original_cifar10:
        return dataset
    counts = dataset.num_train, dataset.num_test, dataset.num_classes, dataset.input_shape
    if counts != (50_000, 10_000, 10, (3, 32, 32)):
        rule = "needs 50,000 training and 10,000 test images of 10 classes, each of 32x32 pixels in 3 channels"
        raise DataError(field, dataset.name, rule)
    provenance = f"{dataset.provenance}; declared to be CIFAR-10 by its user"
    return replace(dataset, mean=CIFAR10_MEAN, std=CIFAR10_STD, provenance=provenance)


def make_dataset(
    *,
    name: str,
    train_images: npt.NDArray[Any],
    train_labels: npt.NDArray[Any],
    test_images: npt.NDArray[Any],
    test_labels: npt.NDArray[Any],
    class_names: Iterable[str] | None = None,
    provenance: str,
    is_original_cifar10: bool = False,
) -> DataSet:
    """Validate arrays and create a data set from them.

    Args:
        name: name of the data set, also used in errors.
        train_images: uint8, (n, height, width) or (n, height, width, channels) with 1 or 3 channels.
        train_labels: integers (n,), from 0 to the number of classes minus one, each class at least once.
        test_images: as ``train_images``, of the same shape except for n.
        test_labels: integers (n,), in the same range.
        class_names: name of each class; default: the class numbers.
        provenance: source of the images, one sentence.
        is_original_cifar10: whether these are the verified CIFAR-10 files, normalised by published constants.

    Raises:
        DataError: an argument is not as described.
    """
    parts = {"train": (train_images, train_labels), "test": (test_images, test_labels)}
    images = {part: check_pair(*given, name=name, part=part) for part, given in parts.items()}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        shapes = " and ".join(str(images[part].shape[1:]) for part in parts)
        raise DataError("data", name, f"train and test images must have the same shape, not {shapes}")
    # Without names, the number of classes is that of distinct training labels; a gap gives a label out of range.
    names = tuple(class_names) if class_names is not None else _class_numbers(train_labels)
    _check_class_names(name, names)
    for part, (_, given) in parts.items():
        _check_label_range(name, part, given, num_classes=len(names))
    labels = {part: _read_only(given.astype(np.int64)) for part, (_, given) in parts.items()}
    absent = np.flatnonzero(np.bincount(labels["train"], minlength=len(names)) == 0)
    if len(absent):
        raise DataError("data", name, f"every class needs a training image, class {names[absent[0]]!r} has none")

    arrays: list[npt.NDArray[Any]] = [images["train"], labels["train"], images["test"], labels["test"]]
    # Hashing releases the GIL, so it runs in parallel with the statistics.
    with ThreadPoolExecutor(1, thread_name_prefix="fingerprint") as thread:
        hashed = thread.submit(_fingerprint, arrays, num_classes=len(names))
        mean, std = (CIFAR10_MEAN, CIFAR10_STD) if is_original_cifar10 else pixel_statistics(images["train"])
        if images["train"].min() == images["train"].max():
            _log.warning("data %s: all training pixels are %d", name, images["train"].flat[0])
        fingerprint = hashed.result()
    return DataSet(
        name=name,
        train_images=images["train"],
        train_labels=labels["train"],
        class_names=names,
        test=SealedTestSet(images=images["test"], labels=labels["test"], fingerprint=fingerprint),
        fingerprint=fingerprint,
        provenance=provenance + ("" if is_original_cifar10 else copies_remark(images["train"], images["test"])),
        is_original_cifar10=is_original_cifar10,
        mean=mean,
        std=std,
    )


def pixel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of pixels scaled to [0, 1].

    Sums are exact integers, computed a few images at a time without a float copy of all images.

    Args:
        images: uint8 (n, channels, height, width).

    Returns:
        Means and standard deviations per channel; a standard deviation of 0 is replaced by 1 to allow division.
    """
    count, channels, height, width = images.shape
    totals = np.zeros(channels, dtype=np.int64)
    totals_of_squares = np.zeros(channels, dtype=np.int64)
    step = max(1, (1 << 18) // (height * width))
    whole = height * width // 256 * 256
    for start in range(0, count, step):
        pixels = images[start : start + step].reshape(-1, channels, height * width)
        # The squares of 256 pixels sum to less than 2^24, up to which float32 represents every integer, so the sums
        # are exact in any order.
        blocks = pixels[..., :whole].reshape(len(pixels), channels, -1, 256)
        for block in (blocks, pixels[..., np.newaxis, whole:]):
            values = block.astype(np.float32)
            sums = np.einsum("ncbp->cnb", values), np.einsum("ncbp,ncbp->cnb", values, values)
            totals += sums[0].sum(axis=(1, 2), dtype=np.int64)
            totals_of_squares += sums[1].sum(axis=(1, 2), dtype=np.int64)
    pixel_count = count * height * width
    means, deviations = [], []
    for total, total_of_squares in zip(totals.tolist(), totals_of_squares.tolist(), strict=True):
        # n * sum(x^2) - sum(x)^2 in integers: no cancellation, and exactly 0 if all pixels are equal.
        spread = pixel_count * total_of_squares - total * total
        means.append(total / pixel_count / 255)
        deviations.append(spread**0.5 / pixel_count / 255 or 1.0)
    return tuple(means), tuple(deviations)


def checked_images(images: npt.NDArray[Any], *, field: str, name: str, array: str) -> npt.NDArray[np.uint8]:
    """Return images as a contiguous read-only (n, channels, height, width) array.

    Args:
        images: uint8, (n, height, width) or (n, height, width, channels) with 1 or 3 channels.
        field: name of the input in errors.
        name: value of the input in errors.
        array: name of the array in errors.

    Raises:
        DataError: the array is not as described.
    """
    if images.dtype != np.uint8:
        raise DataError(field, name, f"{array} must be uint8, values 0 to 255, not {images.dtype}")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        rule = f"{array} must have the shape (n, height, width) or (n, height, width, 1 or 3)"
        raise DataError(field, name, f"{rule}, not {images.shape}")
    if 0 in images.shape:
        raise DataError(field, name, f"{array} must contain at least one image of at least one pixel")
    return _read_only(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def check_pair(images: npt.NDArray[Any], labels: npt.NDArray[Any], *, name: str, part: str) -> npt.NDArray[np.uint8]:
    """Return the images of a part as `checked_images` does, after checking that each has a label.

    Args:
        images: as for `checked_images`.
        labels: integers (n,).
        name: name of the data set, for errors.
        part: name of the part, for errors, such as ``train``.

    Raises:
        DataError: an array is not as described.
    """
    checked = checked_images(images, field="data", name=name, array=f"{part}_images")
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        rule = f"{part}_labels must be whole numbers ({len(images)},), one for each image"
        raise DataError("data", name, f"{rule}, not {labels.dtype} {labels.shape}")
    return checked


def _check_label_range(name: str, part: str, labels: npt.NDArray[Any], *, num_classes: int) -> None:
    for extreme in (int(labels.min()), int(labels.max())):
        if not 0 <= extreme < num_classes:
            rule = f"{part}_labels must be 0 to {num_classes - 1} ({num_classes} classes), not {extreme}"
            raise DataError("data", name, rule)


def _check_class_names(name: str, class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        raise DataError("data", name, f"must have at least 2 classes, not {len(class_names)}")
    if len(set(class_names)) < len(class_names):
        raise DataError("data", name, "class names must differ from each other")
    for class_name in class_names:
        if not class_name.strip() or not class_name.isprintable():
            raise DataError("data", name, f"class names must be printable text, not {class_name!r}")


def _class_numbers(labels: npt.NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(number) for number in range(len(np.unique(labels))))


def _read_only(array: npt.NDArray[Element]) -> npt.NDArray[Element]:
    view = array.view()
    view.flags.writeable = False
    return view


def _fingerprint(arrays: list[npt.NDArray[Any]], *, num_classes: int) -> str:
    digest = hashlib.sha256(f"budgetnet data 1, {num_classes} classes\n".encode())
    for array in arrays:
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{little_endian.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(little_endian).data)
    return digest.hexdigest()
