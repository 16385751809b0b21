"""Comparison of two networks' predictions on the same images.

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
from budgetnet.statistics.checks import check_integer
from budgetnet.statistics.intervals import Interval, wilson_interval


class McNemar(NamedTuple):
    """Result of McNemar's test."""

    only_first: int
    """Number of images that only the first network classifies correctly."""
    only_second: int
    """Number of images that only the second network classifies correctly."""
    p_value: float
    """Exact two-sided p-value."""


class PredictionComparison(NamedTuple):
    """Comparison of two networks on the same images."""

    images: int
    difference: float
    """Accuracy of the first minus that of the second, as a share."""
    interval: Interval
    """Newcombe's interval of the difference, for paired proportions."""
    mcnemar: McNemar
    """McNemar's test. Its method differs from the interval's, so the two may disagree near the significance level."""


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Compute McNemar's exact test that two networks have the same accuracy.

    Args:
        only_first: number of images that only the first network classifies correctly.
        only_second: number of images that only the second network classifies correctly.

    Raises:
        InputError: a count is negative or not a whole number.
    """
    only_first = check_integer("only_first", only_first, least=0)
    only_second = check_integer("only_second", only_second, least=0)
    if only_first == only_second:
        return McNemar(only_first, only_second, 1.0)
    from scipy.stats import binomtest

    return McNemar(only_first, only_second, float(binomtest(only_first, only_first + only_second).pvalue))


def compare_predictions(
    first_correct: npt.NDArray[np.bool_], second_correct: npt.NDArray[np.bool_], *, confidence: float = 0.95
) -> PredictionComparison:
    """Compare the accuracies of two networks on the same images.

    The result covers the sampling of images only, not the variance between training seeds.

    Args:
        first_correct: whether the first network's prediction is correct, for each image (images,).
        second_correct: the same for the second network, in the same order.
        confidence: two-sided confidence level of the interval, between 0 and 1.

    Raises:
        InputError: no images, arrays of different lengths or not of booleans, or a confidence level out of range.
    """
    first, second = _booleans("first_correct", first_correct), _booleans("second_correct", second_correct)
    if len(first) != len(second):
        rule = f"must have one entry for each image of first_correct: {len(first)}, not {len(second)}"
        raise InputError("second_correct", second_correct, rule)
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second, neither = int((~first & second).sum()), int((~first & ~second).sum())
    return PredictionComparison(
        images=len(first),
        difference=(only_first - only_second) / len(first),
        interval=_paired_interval(both, only_first, only_second, neither, confidence),
        mcnemar=mcnemar(only_first, only_second),
    )


def _paired_interval(both: int, only_first: int, only_second: int, neither: int, confidence: float) -> Interval:
    """Compute Newcombe's interval of a difference of paired proportions (method 10)."""
    images = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    first_interval = wilson_interval(first, images, confidence=confidence)
    second_interval = wilson_interval(second, images, confidence=confidence)
    # Correlation of correct predictions; a positive one has a continuity correction.
    cross = float(both * neither - only_first * only_second)
    cross = max(cross - images / 2, 0.0) if cross > 0 else cross
    scale = math.sqrt(first * (images - first) * second * (images - second))
    correlation = cross / scale if scale else 0.0

    def half_width(one: float, other: float) -> float:
        return math.sqrt((one - other) ** 2 + 2 * (1 - correlation) * one * other)

    share, other_share = first / images, second / images
    difference = (only_first - only_second) / images
    return Interval(
        low=difference - half_width(share - first_interval.low, second_interval.high - other_share),
        high=difference + half_width(first_interval.high - share, other_share - second_interval.low),
    )


def _booleans(field: str, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype != np.bool_:
        raise InputError(field, values, "must be an array of booleans, one for each image, at least one")
    return array
