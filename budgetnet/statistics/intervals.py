"""Intervals for accuracies, so that no rank rests on noise.

An accuracy is a count of right answers over a number of images, and a count scatters. Wilson's interval says how far
one accuracy could be off; Newcombe's says the same of the difference of two. Both stay sensible where the textbook
interval ``p ± z·sqrt(p(1 - p)/n)`` fails: near 0 and 1, and for few images.

What they cover is the draw of the test images alone. That training with another seed gives another network comes on
top, and only further seeds can show it.

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
import operator
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import percent


class Interval(NamedTuple):
    """A confidence interval of a share, or of a difference of two shares; both ends belong to it."""

    low: float
    """The lower end, as a share: 0.91 is 91 %."""

    high: float
    """The upper end, as a share."""


def wilson_interval(successes: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion, without continuity correction (Wilson 1927).

    Args:
        successes: how many were right, from 0 to ``total``.
        total: how many there were, at least 1.
        confidence: the two-sided confidence level, between 0 and 1.

    Returns:
        The interval of ``successes / total``, within 0 and 1. It holds the proportion itself.

    Raises:
        InputError: a count or the confidence level is out of range, or a count is not a whole number.
    """
    successes, total = _checked_counts(successes, total)
    z = _normal_quantile(confidence)
    share = successes / total
    spread = z * z / total
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # Where all were right the formula gives 1, which rounding misses by a hair. Its 0 for none survives rounding.
    return Interval(low=middle - reach, high=1.0 if successes == total else middle + reach)


def difference_interval(
    successes_a: int, total_a: int, successes_b: int, total_b: int, *, confidence: float = 0.95
) -> Interval:
    """Newcombe's hybrid score interval of a difference of two independent proportions (Newcombe 1998, method 10).

    Two networks judged on the same images are not independent: mostly they fail on the same ones, and then their
    difference scatters less than this interval allows. Read so, it is too wide rather than too narrow.

    Args:
        successes_a: how many were right in the first group, from 0 to ``total_a``.
        total_a: how many there were in the first group, at least 1.
        successes_b: how many were right in the second group, from 0 to ``total_b``.
        total_b: how many there were in the second group, at least 1.
        confidence: the two-sided confidence level, between 0 and 1.

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
    """Student's interval of the mean of a normal variable, from a few draws of it (Student 1908).

    Args:
        values: the draws, at least two.
        confidence: the two-sided confidence level, between 0 and 1.

    Returns:
        The interval; of shares it may reach beyond 0 and 1.

    Raises:
        InputError: fewer than two draws, or a confidence level out of range.
    """
    if len(values) < 2:
        raise InputError("values", list(values), "must be at least two: one alone shows no spread")
    _normal_quantile(confidence)
    from scipy.stats import t

    middle = fmean(values)
    reach = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(middle - reach, middle + reach)


def gap_interval(value: float, interval: Interval, other: float, other_interval: Interval) -> Interval:
    """Interval of the difference of two independent estimates from their own (Zou and Donner 2008, "MOVER").

    Args:
        value: the first estimate.
        interval: its interval.
        other: the second estimate, which is taken away.
        other_interval: its interval, of the same confidence level.
    """
    difference = value - other
    return Interval(
        low=difference - math.hypot(value - interval.low, other_interval.high - other),
        high=difference + math.hypot(interval.high - value, other - other_interval.low),
    )


def exceeds_noise(interval: Interval) -> bool:
    """Whether a difference is larger than noise: zero lies outside its interval, and not on an end of it."""
    return interval.low > 0 or interval.high < 0


def accuracy_count(accuracy: float, total: int) -> int:
    """The count of right answers behind a published accuracy: the nearest one, as papers round.

    Args:
        accuracy: the accuracy as a share, from 0 to 1.
        total: how many images it was measured on, at least 1.

    Returns:
        The number of right answers, from 0 to ``total``. Of two equally near it is the even one.

    Raises:
        InputError: the accuracy lies outside 0 and 1, as one in per cent does, or the total is not a whole number of
            at least 1.
    """
    _, total = _checked_counts(0, total)
    if not 0 <= accuracy <= 1:
        raise InputError("accuracy", accuracy, "must be a share from 0 to 1")
    return round(accuracy * total)


def _checked_counts(successes: int, total: int, *, suffix: str = "") -> tuple[int, int]:
    """The two counts as plain integers; ``suffix`` ends their names in an error."""
    total = _whole(f"total{suffix}", total)
    if total < 1:
        raise InputError(f"total{suffix}", total, "must be at least 1")
    successes = _whole(f"successes{suffix}", successes)
    if not 0 <= successes <= total:
        raise InputError(f"successes{suffix}", successes, f"must be from 0 to total{suffix} = {total}")
    return successes, total


def _whole(field: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(field, value, "must be a whole number") from None


def _normal_quantile(confidence: float) -> float:
    """How many standard deviations to either side of the mean a normal variable stays within with this probability."""
    if not 0 < confidence < 1:
        raise InputError("confidence", confidence, "must lie between 0 and 1")
    # Taken from the lower tail, where a level close to 1 still leaves a number that differs from 0.
    return -NormalDist().inv_cdf((1 - confidence) / 2)


def with_interval(share: float, interval: Interval) -> str:
    """A share with its interval, both in per cent: ``91.41 [90.84, 91.94]``."""
    return f"{percent(share)} [{percent(interval.low)}, {percent(interval.high)}]"


def points(difference: float, interval: Interval | None = None) -> str:
    """A difference of shares in points, with its interval: ``+0.53 [+0.08, +0.98]``."""
    text = f"{100 * difference:+.2f}"
    return text if interval is None else f"{text} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
