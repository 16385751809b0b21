"""What a data set is once it is in memory: checked arrays, a fingerprint, and a test set under seal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import DataError
from budgetnet.data.test_set import SealedTestSet

Element = TypeVar("Element", bound=np.generic)

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
"""Mean of CIFAR-10's training pixels in [0, 1], per channel, as the published notebook has it."""

CIFAR10_STD = (0.2023, 0.1994, 0.2010)
"""The published notebook's divisor per channel: the images' own deviations averaged, not that of all pixels (0.247)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """A data set for classification, whole in memory, its arrays read-only."""

    name: str
    """What was asked for: ``digits``, ``cifar10``, ``folder:PATH``, ``arrays:PATH.npz``."""

    train_images: npt.NDArray[np.uint8] = field(repr=False)
    """Training images (n, channels, height, width), values 0 to 255, contiguous."""

    train_labels: npt.NDArray[np.int64] = field(repr=False)
    """Class number of each training image (n,)."""

    class_names: tuple[str, ...]
    """Name of each class, in the order of the class numbers."""

    test: SealedTestSet
    """The test images, which can only be reached by an opening that is written down."""

    fingerprint: str
    """SHA-256 of all four arrays and the number of classes: the same images have the same one under any name."""

    provenance: str
    """Where the images come from, one sentence for a report."""

    is_original_cifar10: bool
    """Whether this is CIFAR-10 itself, checksums verified, so that published results can be compared."""

    mean: tuple[float, ...]
    """Mean of the training pixels scaled to [0, 1], per channel."""

    std: tuple[float, ...]
    """Standard deviation of the training pixels scaled to [0, 1], per channel; 1 where all pixels are alike."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image: (channels, height, width)."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        """How many training images there are, before any validation part is set aside."""
        return len(self.train_labels)

    @property
    def num_test(self) -> int:
        """How many test images there are."""
        return self.test.count


def declared_cifar10(dataset: DataSet, *, field: str) -> DataSet:
    """A copy of CIFAR-10 that its user vouches for: normalised as the original, and not called original.

    Args:
        dataset: the copy.
        field: what the user said so by, for an error.

    Raises:
        DataError: it has not CIFAR-10's images, by their numbers and shape.
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
    """Checks arrays and makes a data set of them.

    Args:
        name: what was asked for; errors name it.
        train_images: uint8, (n, height, width) or (n, height, width, channels) with 1 or 3 channels.
        train_labels: whole numbers (n,), 0 to the number of classes minus one, each class at least once.
        test_images: as ``train_images``, of the same shape apart from n.
        test_labels: whole numbers (n,), in the same range.
        class_names: one name a class; without them the classes are called by their numbers.
        provenance: where the images come from, one sentence.
        is_original_cifar10: whether these are CIFAR-10's own files, verified; then normalised by published constants.

    Raises:
        DataError: any of the above does not hold.
    """
    parts = {"train": (train_images, train_labels), "test": (test_images, test_labels)}
    images = {part: _checked_images(name, part, given) for part, (given, _) in parts.items()}
    for part, (_, given) in parts.items():
        _check_labels(name, part, given, count=len(images[part]))
    if images["train"].shape[1:] != images["test"].shape[1:]:
        shapes = " and ".join(str(images[part].shape[1:]) for part in parts)
        raise DataError("data", name, f"train and test images must have the same shape, not {shapes}")
    # Without names the classes are those that occur in training; a gap then shows as a label that is too large.
    names = tuple(class_names) if class_names is not None else _numbered(train_labels)
    _check_class_names(name, names)
    for part, (_, given) in parts.items():
        _check_label_range(name, part, given, num_classes=len(names))
    labels = {part: _read_only(given.astype(np.int64)) for part, (_, given) in parts.items()}
    absent = np.flatnonzero(np.bincount(labels["train"], minlength=len(names)) == 0)
    if len(absent):
        raise DataError("data", name, f"every class needs a training image, class {names[absent[0]]!r} has none")

    arrays: list[npt.NDArray[Any]] = [images["train"], labels["train"], images["test"], labels["test"]]
    # The two that look at every pixel, side by side: hashing leaves the interpreter to others.
    with ThreadPoolExecutor(1, thread_name_prefix="fingerprint") as thread:
        hashed = thread.submit(_fingerprint, arrays, num_classes=len(names))
        mean, std = (CIFAR10_MEAN, CIFAR10_STD) if is_original_cifar10 else pixel_statistics(images["train"])
        fingerprint = hashed.result()
    return DataSet(
        name=name,
        train_images=images["train"],
        train_labels=labels["train"],
        class_names=names,
        test=SealedTestSet(images=images["test"], labels=labels["test"], fingerprint=fingerprint),
        fingerprint=fingerprint,
        provenance=provenance,
        is_original_cifar10=is_original_cifar10,
        mean=mean,
        std=std,
    )


def pixel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels scaled to [0, 1].

    Added up in whole numbers, a few images at a time, so it is exact and needs no copy of all images as floats.

    Args:
        images: uint8 (n, channels, height, width).

    Returns:
        The means and the deviations, one a channel; a deviation of 0 becomes 1, so that dividing by it is harmless.
    """
    count, channels, height, width = images.shape
    totals = np.zeros(channels, dtype=np.int64)
    totals_of_squares = np.zeros(channels, dtype=np.int64)
    step = max(1, (1 << 18) // (height * width))
    whole = height * width // 256 * 256
    for start in range(0, count, step):
        pixels = images[start : start + step].reshape(-1, channels, height * width)
        # In blocks of at most 256 pixels, whose squares add up to less than 2^24: so far float32 knows every whole
        # number, and sums are exact in whatever order they are made.
        blocks = pixels[..., :whole].reshape(len(pixels), channels, -1, 256)
        for block in (blocks, pixels[..., np.newaxis, whole:]):
            values = block.astype(np.float32)
            sums = np.einsum("ncbp->cnb", values), np.einsum("ncbp,ncbp->cnb", values, values)
            totals += sums[0].sum(axis=(1, 2), dtype=np.int64)
            totals_of_squares += sums[1].sum(axis=(1, 2), dtype=np.int64)
    pixel_count = count * height * width
    means, deviations = [], []
    for total, total_of_squares in zip(totals.tolist(), totals_of_squares.tolist(), strict=True):
        # n * sum(x^2) - sum(x)^2 in whole numbers: no cancellation, and exactly 0 when all pixels are alike.
        spread = pixel_count * total_of_squares - total * total
        means.append(total / pixel_count / 255)
        deviations.append(spread**0.5 / pixel_count / 255 or 1.0)
    return tuple(means), tuple(deviations)


def _checked_images(name: str, part: str, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The images as a contiguous read-only (n, channels, height, width) array."""
    if images.dtype != np.uint8:
        raise DataError("data", name, f"{part}_images must be uint8, values 0 to 255, not {images.dtype}")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        rule = f"{part}_images must have the shape (n, height, width) or (n, height, width, 1 or 3)"
        raise DataError("data", name, f"{rule}, not {images.shape}")
    if 0 in images.shape:
        raise DataError("data", name, f"{part}_images must hold at least one image of at least one pixel")
    return _read_only(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _check_labels(name: str, part: str, labels: npt.NDArray[Any], *, count: int) -> None:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError("data", name, f"{part}_labels must be whole numbers, one for each image")


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


def _numbered(labels: npt.NDArray[Any]) -> tuple[str, ...]:
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
