"""Two networks compared image by image.

Sources:
    Q. McNemar (1947), "Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages",
    Psychometrika 12(2), 153-157.
    R. G. Newcombe (1998), "Improved Confidence Intervals for the Difference Between Binomial Proportions Based on
    Paired Data", Statistics in Medicine 17(22), 2635-2650.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import InputError
from budgetnet.statistics.checks import whole
from budgetnet.statistics.intervals import Interval, wilson_interval


class McNemar(NamedTuple):
    """The images on which two networks differ, and how likely so lopsided a count is by chance."""

    only_first: int
    """Images that the first classifies rightly and the second does not."""
    only_second: int
    """Images that the second classifies rightly and the first does not."""
    p_value: float
    """Two-sided, exact."""


class PredictionComparison(NamedTuple):
    """Two networks on the same images."""

    images: int
    difference: float
    """Accuracy of the first less that of the second, as a share."""
    interval: Interval
    """Of the difference: Newcombe's for paired proportions."""
    mcnemar: McNemar
    """Whether they differ. It is made in another way than the interval: close to a level the two may disagree."""


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's test, exact: where only one of two networks is right, is it either of them equally often?

    Args:
        only_first: images that only the first classifies rightly.
        only_second: images that only the second classifies rightly.

    Raises:
        InputError: a count is negative or not a whole number.
    """
    only_first = whole("only_first", only_first, least=0)
    only_second = whole("only_second", only_second, least=0)
    if only_first == only_second:
        return McNemar(only_first, only_second, 1.0)
    from scipy.stats import binomtest

    return McNemar(only_first, only_second, float(binomtest(only_first, only_first + only_second).pvalue))


def compare_predictions(
    first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_], *, confidence: float = 0.95
) -> PredictionComparison:
    """Two networks on the same images: the difference of their accuracies, and whether it is more than noise.

    What is covered is the draw of the images. Other seeds would give other networks, and that comes on top.

    Args:
        first_right: whether the first network is right, for each image (images,).
        second_right: the same of the second, in the same order.
        confidence: the two-sided confidence level of the interval, between 0 and 1.

    Raises:
        InputError: no images, unequal numbers of them, anything but booleans, or a confidence level out of range.
    """
    first, second = _booleans("first_right", first_right), _booleans("second_right", second_right)
    if len(first) != len(second):
        rule = f"must be of the same images as first_right: {len(first)}, not {len(second)}"
        raise InputError("second_right", second_right, rule)
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second, neither = int((~first & second).sum()), int((~first & ~second).sum())
    return PredictionComparison(
        images=len(first),
        difference=(only_first - only_second) / len(first),
        interval=_paired_interval(both, only_first, only_second, neither, confidence),
        mcnemar=mcnemar(only_first, only_second),
    )


def _paired_interval(both: int, only_first: int, only_second: int, neither: int, confidence: float) -> Interval:
    """Newcombe's interval of a difference of paired proportions, method 10: Wilson's two and their correlation."""
    images = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    first_interval = wilson_interval(first, images, confidence=confidence)
    second_interval = wilson_interval(second, images, confidence=confidence)
    # The correlation of right answers, a positive one corrected for the counts being whole numbers.
    cross = float(both * neither - only_first * only_second)
    cross = max(cross - images / 2, 0.0) if cross > 0 else cross
    scale = math.sqrt(first * (images - first) * second * (images - second))
    correlation = cross / scale if scale else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt((one - other) ** 2 + 2 * (1 - correlation) * one * other)

    share, other_share = first / images, second / images
    difference = (only_first - only_second) / images
    return Interval(
        low=difference - reach(share - first_interval.low, second_interval.high - other_share),
        high=difference + reach(first_interval.high - share, other_share - second_interval.low),
    )


def _booleans(field: str, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype != np.bool_:
        raise InputError(field, values, "must be an array of booleans, one for each image, at least one")
    return array
