"""Confidence intervals of accuracies, of their differences and of means.

Wilson's interval is for one accuracy, Newcombe's for the difference of two. Unlike the normal approximation
``p ± z·sqrt(p(1 - p)/n)``, both remain valid near 0 and 1 and for few images.

These intervals cover the sampling of test images only, not the variance between training seeds.

Sources:
    E. B. Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the American
    Statistical Association 22(158), 209-212.
    R. G. Newcombe (1998), "Interval Estimation for the Difference Between Independent Proportions: Comparison of Eleven
    Methods", Statistics in Medicine 17(8), 873-890.
    Student (1908), "The Probable Error of a Mean", Biometrika 6(1), 1-25.
    G. Y. Zou, A. Donner (2008), "Construction of Confidence Limits about Effect Measures: A General Approach",
    Statistics in Medicine 27(10), 1693-1702.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import percent
from budgetnet.statistics.checks import check_confidence, check_integer


class Interval(NamedTuple):
    """A closed confidence interval of a share or of a difference of two shares."""

    low: float
    """Lower end, as a share: 0.91 is 91 %."""

    high: float
    """Upper end, as a share."""


def wilson_interval(successes: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Compute Wilson's score interval of a proportion, without continuity correction (Wilson 1927).

    Args:
        successes: number of successes, from 0 to ``total``.
        total: number of trials, at least 1.
        confidence: two-sided confidence level, between 0 and 1.

    Returns:
        The interval of ``successes / total``, within 0 and 1; it contains the proportion.

    Raises:
        InputError: a count or the confidence level is out of range, or a count is not a whole number.
    """
    successes, total = _checked_counts(successes, total)
    z = _normal_quantile(confidence)
    share = successes / total
    spread = z * z / total
    center = (share + spread / 2) / (1 + spread)
    half_width = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # For total successes the formula gives 1 up to rounding. For 0 successes it gives exactly 0.
    return Interval(low=center - half_width, high=1.0 if successes == total else center + half_width)


def difference_interval(
    successes_a: int, total_a: int, successes_b: int, total_b: int, *, confidence: float = 0.95
) -> Interval:
    """Compute Newcombe's hybrid score interval of a difference of independent proportions (Newcombe 1998, method 10).

    For two networks evaluated on the same images the interval is conservative: their errors are usually positively
    correlated, so their difference varies less. `compare_predictions` takes the correlation into account.

    Args:
        successes_a: successes of the first group, from 0 to ``total_a``.
        total_a: size of the first group, at least 1.
        successes_b: successes of the second group, from 0 to ``total_b``.
        total_b: size of the second group, at least 1.
        confidence: two-sided confidence level, between 0 and 1.

    Returns:
        The interval of ``successes_a / total_a - successes_b / total_b``, within -1 and 1.

    Raises:
        InputError: a count or the confidence level is out of range, or a count is not a whole number.
    """
    successes_a, total_a = _checked_counts(successes_a, total_a, suffix="_a")
    successes_b, total_b = _checked_counts(successes_b, total_b, suffix="_b")
    share_a, share_b = successes_a / total_a, successes_b / total_b
    interval_a = wilson_interval(successes_a, total_a, confidence=confidence)
    interval_b = wilson_interval(successes_b, total_b, confidence=confidence)
    return gap_interval(share_a, interval_a, share_b, interval_b)


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Compute Student's t interval of the mean of a normal variable (Student 1908).

    Args:
        values: independent samples, at least two.
        confidence: two-sided confidence level, between 0 and 1.

    Returns:
        The interval; of shares it may extend beyond 0 and 1.

    Raises:
        InputError: fewer than two values, or a confidence level out of range.
    """
    if len(values) < 2:
        raise InputError("values", list(values), "must have at least two entries")
    check_confidence(confidence)
    from scipy.stats import t

    mean = fmean(values)
    half_width = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean - half_width, mean + half_width)


def gap_interval(value: float, interval: Interval, other: float, other_interval: Interval) -> Interval:
    """Combine the intervals of two independent estimates into one of their difference (MOVER, Zou and Donner 2008).

    Args:
        value: first estimate.
        interval: interval of the first estimate.
        other: second estimate, which is subtracted.
        other_interval: interval of the second estimate, at the same confidence level.
    """
    difference = value - other
    return Interval(
        low=difference - math.hypot(value - interval.low, other_interval.high - other),
        high=difference + math.hypot(interval.high - value, other - other_interval.low),
    )


def exceeds_noise(interval: Interval) -> bool:
    """Return whether a difference is significant: its interval does not contain zero."""
    return interval.low > 0 or interval.high < 0


def correct_count(accuracy: float, total: int) -> int:
    """Return the number of correct predictions closest to a rounded accuracy.

    Args:
        accuracy: accuracy as a share, from 0 to 1.
        total: number of images, at least 1.

    Returns:
        The number of correct predictions, from 0 to ``total``; ties are rounded to the even number.

    Raises:
        InputError: the accuracy is not from 0 to 1 (it may be in per cent), or the total is not a whole number of at
            least 1.
    """
    _, total = _checked_counts(0, total)
    if not 0 <= accuracy <= 1:
        raise InputError("accuracy", accuracy, "must be a share from 0 to 1")
    return round(accuracy * total)


def _checked_counts(successes: int, total: int, *, suffix: str = "") -> tuple[int, int]:
    """Return both counts as `int`; ``suffix`` is appended to the field names in errors."""
    total = check_integer(f"total{suffix}", total, least=1)
    successes = check_integer(f"successes{suffix}", successes)
    if not 0 <= successes <= total:
        raise InputError(f"successes{suffix}", successes, f"must be from 0 to total{suffix} = {total}")
    return successes, total


def _normal_quantile(confidence: float) -> float:
    """Return the z value of a two-sided confidence level: 1.96 for 0.95."""
    check_confidence(confidence)
    # The lower tail is accurate for levels close to 1; the upper one would round to 1.
    return -NormalDist().inv_cdf((1 - confidence) / 2)


def format_with_interval(share: float, interval: Interval, *, images: int | None = None) -> str:
    """Format a share and its interval in per cent, with the decimals of `percent`: ``91.41 [90.84, 91.94]``."""
    value, low, high = (percent(each, images=images) for each in (share, *interval))
    return f"{value} [{low}, {high}]"


def points(difference: float, interval: Interval | None = None) -> str:
    """Format a difference of shares and its interval in percentage points: ``+0.53 [+0.08, +0.98]``."""
    text = f"{100 * difference:+.2f}"
    return text if interval is None else f"{text} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
