"""Classification metrics from predicted probabilities: accuracy, loss, confusion matrix and calibration.

Expected calibration error: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", ICML.
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
"""Allowed deviation from 1 of the sum of an image's probabilities, for rounding in half precision."""

_SMALLEST = float(np.finfo(np.float32).tiny)
"""Lower bound of probabilities in the loss: the smallest normal float32, a loss of 87 nats."""


class ClassScore(NamedTuple):
    """Metrics of one class."""

    name: str
    images: int
    """Number of images of the class."""
    correct: int
    """Number of these classified correctly."""
    accuracy: float | None
    """Fraction of these classified correctly (recall); None for a class without images."""
    interval: Interval | None
    """95 % Wilson interval of the accuracy."""
    precision: float | None
    """Fraction of the images predicted as this class that belong to it; None if there are none."""


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose confidence lies in one interval."""

    low: float
    """Lower edge of the bin, excluded."""
    high: float
    """Upper edge of the bin, included."""
    count: int
    """Number of images in the bin."""
    confidence: float | None
    """Mean confidence; None for an empty bin."""
    accuracy: float | None
    """Fraction classified correctly; None for an empty bin."""


class Calibration(NamedTuple):
    """Calibration of predicted probabilities."""

    ece: float
    """Expected calibration error: mean absolute difference of accuracy and confidence, weighted by images per bin."""
    bins: list[CalibrationBin]
    """Bins in ascending order of confidence."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Predicted probabilities and true labels of a set of images, as read-only copies.

    Raises:
        InputError: a shape is wrong, there are no images, a probability is negative, the probabilities of an image do
            not sum to 1 within 0.001, or a label is out of range.
    """

    probabilities: npt.NDArray[np.floating[Any]]
    """Predicted probabilities (images, num_classes), converted to float64."""
    labels: npt.NDArray[np.integer[Any]]
    """True classes (images,), from 0."""

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
        """Number of images."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """Predicted class of each image (images,); the first of equally probable ones."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image is classified correctly (images,)."""
        return np.asarray(self.predictions == self.labels)

    @property
    def correct(self) -> int:
        """Number of images classified correctly."""
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of images classified correctly."""
        return self.correct / self.images

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.images)

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes of the fraction classified correctly; classes without images do not count."""
        confusion = self.confusion()
        totals = confusion.sum(axis=1)
        return float((confusion.diagonal()[totals > 0] / totals[totals > 0]).mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats; a probability of 0 for the true class counts 87.3."""
        true_class = self.probabilities[np.arange(self.images), self.labels]
        return float(-np.log(np.maximum(true_class, _SMALLEST)).mean())

    def confusion(self) -> npt.NDArray[np.int64]:
        """Return the confusion matrix (num_classes, num_classes): rows are true, columns predicted classes."""
        pairs = self.labels * self.num_classes + self.predictions
        counts = np.bincount(pairs, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes).astype(np.int64)

    def per_class(self, names: Sequence[str] | None = None) -> list[ClassScore]:
        """Return the metrics of each class.

        Args:
            names: name of each class; default: the class numbers.

        Raises:
            InputError: the number of names is not the number of classes.
        """
        names = [str(number) for number in range(self.num_classes)] if names is None else list(names)
        if len(names) != self.num_classes:
            raise InputError("names", names, f"must be {self.num_classes}, one for each class")
        confusion = self.confusion()
        hits, totals, predicted = (
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
                precision=hit / assigned if assigned else None,
            )
            for name, hit, total, assigned in zip(names, hits, totals, predicted, strict=True)
        ]

    def calibration(self, bins: int = 15) -> Calibration:
        """Compare confidence, the highest probability of an image, with accuracy (Guo et al. 2017, equation 3).

        Args:
            bins: number of bins of equal width from 0 to 1; a confidence on an edge belongs to the lower bin.

        Raises:
            InputError: bins is not an integer of at least 1.
        """
        if not isinstance(bins, int) or bins < 1:
            raise InputError("bins", bins, "must be a whole number of at least 1")
        edges = np.arange(bins + 1) / bins
        confidences, right = self.probabilities.max(axis=1), self.right
        # The outer edges are not used, so that the outer bins also hold confidences rounded beyond 0 or 1.
        indices = np.searchsorted(edges[1:-1], confidences, side="left")
        counts = np.bincount(indices, minlength=bins).tolist()
        summed = np.bincount(indices, weights=confidences, minlength=bins).tolist()
        hits = np.bincount(indices, weights=right, minlength=bins).tolist()
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
    """Return the scores of an ensemble, the mean of its members' probabilities.

    Args:
        members: scores of each network for the same images, in the same order.

    Raises:
        InputError: there are no members, or their images, labels or classes differ.
    """
    if not members:
        raise InputError("members", list(members), "must be at least one")
    first = members[0]
    for index, member in enumerate(members):
        if member.probabilities.shape != first.probabilities.shape:
            rule = f"must have the shape of the first member's: {first.probabilities.shape}"
            raise InputError(f"members[{index}].probabilities", member.probabilities.shape, rule)
        if not np.array_equal(member.labels, first.labels):
            raise InputError(f"members[{index}].labels", member.labels, "must equal the first member's")
    return Scores(np.mean([member.probabilities for member in members], axis=0), first.labels)


def _check_rows(field: str, rows: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> None:
    wrong = np.flatnonzero(~good)
    if wrong.size:
        rule = f"must be at least 0 and sum to 1 within {_SUM_TOLERANCE}"
        raise InputError(f"{field}[{wrong[0]}]", rows[wrong[0]].tolist(), rule)
