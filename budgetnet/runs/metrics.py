"""What a network said of each image, and what follows from that: accuracy, loss, confusion, calibration.

Sources:
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017), "On Calibration of Modern Neural Networks", ICML: the expected
    calibration error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import InputError
from budgetnet.statistics.intervals import Interval, wilson_interval

_SUM_TOLERANCE = 1e-3
"""How far the probabilities of an image may be from adding up to 1: half precision rounds that much away."""

_SMALLEST = float(np.finfo(np.float32).tiny)
"""Where the loss cuts probabilities off: the smallest that float32 holds in full, a loss of 87 nats."""


class ClassScore(NamedTuple):
    """What a network made of the images of one class."""

    name: str
    images: int
    """Images of the class."""
    correct: int
    """Those of them classified rightly."""
    accuracy: float | None
    """Share of them classified rightly (recall); None for a class without images."""
    interval: Interval | None
    """95 % Wilson interval of it."""
    precision: float | None
    """Share of the images said to be of the class that are; None where none was said to be."""


@dataclass(frozen=True)
class CalibrationBin:
    """Images of about the same confidence."""

    low: float
    """Confidences in the bin are above this ..."""
    high: float
    """... and at most this."""
    count: int
    """Images in the bin."""
    confidence: float | None
    """Mean confidence; None for an empty bin."""
    accuracy: float | None
    """Share classified rightly; None for an empty bin."""


class Calibration(NamedTuple):
    """Whether a network is right as often as it says."""

    ece: float
    """Expected calibration error: mean distance of accuracy and confidence over the bins, by their images."""
    bins: list[CalibrationBin]
    """From the lowest confidence to the highest."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Probabilities of every class for every image, and the true classes.

    Both arrays are copied, and cannot be written to.

    Raises:
        InputError: a shape is wrong, there are no images, a probability is not one, those of an image do not add up to
            1 within 0.001, or a label is no class.
    """

    probabilities: npt.NDArray[np.floating[Any]]
    """The network's probabilities (images, num_classes); kept in float64."""
    labels: npt.NDArray[np.integer[Any]]
    """The true classes (images,), from 0."""

    def __post_init__(self) -> None:
        probabilities, labels = np.asarray(self.probabilities), np.asarray(self.labels)
        if probabilities.ndim != 2 or not probabilities.size or probabilities.dtype.kind != "f":
            rule = "must be floating point numbers (images, num_classes), at least one"
            raise InputError("probabilities", f"{probabilities.dtype} {probabilities.shape}", rule)
        if labels.shape != probabilities.shape[:1] or labels.dtype.kind not in "iu":
            rule = f"must be whole numbers, one for each of {len(probabilities)} images"
            raise InputError("labels", f"{labels.dtype} {labels.shape}", rule)
        probabilities = probabilities.astype(np.float64)
        _check_rows("probabilities", probabilities, probabilities.min(axis=1) >= 0)
        _check_rows("probabilities", probabilities, np.abs(probabilities.sum(axis=1) - 1) <= _SUM_TOLERANCE)
        outside = np.flatnonzero((labels < 0) | (labels >= probabilities.shape[1]))
        if outside.size:
            rule = f"must be from 0 to {probabilities.shape[1] - 1}"
            raise InputError(f"labels[{outside[0]}]", int(labels[outside[0]]), rule)
        for field, array in (("probabilities", probabilities), ("labels", labels.astype(np.int64))):
            array.setflags(write=False)
            object.__setattr__(self, field, array)

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return int(self.probabilities.shape[1])

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """The most probable class of each image (images,); of equally probable ones the first."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image is classified rightly (images,)."""
        return np.asarray(self.predictions == self.labels)

    @property
    def correct(self) -> int:
        """How many images are classified rightly."""
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly."""
        return self.correct / self.images

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.images)

    @property
    def loss(self) -> float:
        """Mean negative logarithm of the true class's probability, in nats; 87.3 for a probability of 0."""
        of_truth = self.probabilities[np.arange(self.images), self.labels]
        return float(-np.log(np.maximum(of_truth, _SMALLEST)).mean())

    def confusion(self) -> npt.NDArray[np.int64]:
        """How many images of each class were said to be of each (num_classes, num_classes): rows true, columns said."""
        pairs = self.labels * self.num_classes + self.predictions
        counts = np.bincount(pairs, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes).astype(np.int64)

    def per_class(self, names: Sequence[str] | None = None) -> list[ClassScore]:
        """Each class for itself, in order.

        Args:
            names: of the classes; their numbers if left out.

        Raises:
            InputError: not as many names as classes.
        """
        names = [str(number) for number in range(self.num_classes)] if names is None else list(names)
        if len(names) != self.num_classes:
            raise InputError("names", names, f"must be {self.num_classes}, one for each class")
        confusion = self.confusion()
        hits, totals, said = (
            confusion.diagonal().tolist(),
            confusion.sum(axis=1).tolist(),
            confusion.sum(axis=0).tolist(),
        )
        return [
            ClassScore(
                name=name,
                images=total,
                correct=hit,
                accuracy=hit / total if total else None,
                interval=wilson_interval(hit, total) if total else None,
                precision=hit / claimed if claimed else None,
            )
            for name, hit, total, claimed in zip(names, hits, totals, said, strict=True)
        ]

    def calibration(self, bins: int = 15) -> Calibration:
        """Confidence, the probability of the most probable class, beside accuracy (Guo et al. 2017, equation 3).

        Args:
            bins: of equal width, from 0 to 1; a confidence on an edge belongs to the bin below.

        Raises:
            InputError: not a whole number of bins, or none.
        """
        if not isinstance(bins, int) or bins < 1:
            raise InputError("bins", bins, "must be a whole number of at least 1")
        edges = np.arange(bins + 1) / bins
        confidences, right = self.probabilities.max(axis=1), self.right
        # The first bin and the last also take what rounding put beyond 0 and 1.
        places = np.searchsorted(edges[1:-1], confidences, side="left")
        counts = np.bincount(places, minlength=bins).tolist()
        summed = np.bincount(places, weights=confidences, minlength=bins).tolist()
        hits = np.bincount(places, weights=right, minlength=bins).tolist()
        return Calibration(
            ece=sum(abs(hit - total) for hit, total in zip(hits, summed, strict=True)) / self.images,
            bins=[
                CalibrationBin(low, high, count, total / count if count else None, hit / count if count else None)
                for low, high, count, total, hit in zip(
                    edges[:-1].tolist(), edges[1:].tolist(), counts, summed, hits, strict=True
                )
            ],
        )


def average(members: Sequence[Scores]) -> Scores:
    """An ensemble: the mean of its members' probabilities, image by image.

    Args:
        members: what each network said of the same images, in the same order; at least one.

    Raises:
        InputError: no members, or members of other images, labels or classes.
    """
    if not members:
        raise InputError("members", list(members), "must be at least one")
    first = members[0]
    for place, member in enumerate(members):
        if member.probabilities.shape != first.probabilities.shape:
            rule = f"must be of as many images and classes as the first: {first.probabilities.shape}"
            raise InputError(f"members[{place}].probabilities", member.probabilities.shape, rule)
        if not np.array_equal(member.labels, first.labels):
            raise InputError(f"members[{place}].labels", member.labels, "must be those of the first")
    return Scores(np.mean([member.probabilities for member in members], axis=0), first.labels)


def _check_rows(field: str, rows: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> None:
    wrong = np.flatnonzero(~good)
    if wrong.size:
        rule = f"must be from 0 and add up to 1, within {_SUM_TOLERANCE}"
        raise InputError(f"{field}[{wrong[0]}]", rows[wrong[0]].tolist(), rule)
