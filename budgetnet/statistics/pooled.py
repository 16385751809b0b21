"""Paired difference averaged over several groups, such as several networks.

Source:
    H. Scheffé (1959), "The Analysis of Variance", chapter 3: linear functions of the means of a one-way layout with
    fixed effects, here with paired differences as observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from budgetnet.common.errors import InputError
from budgetnet.statistics.checks import check_confidence, check_numbers, rounding_error
from budgetnet.statistics.intervals import Interval


class PooledDifference(NamedTuple):
    """Difference between two variants, averaged over groups of pairs."""

    pairs: tuple[int, ...]
    """Number of pairs in each group."""
    mean: float
    """Unweighted mean of the groups' mean differences, first minus second."""
    standard_deviation: float | None
    """Pooled within-group standard deviation of the differences; None without degrees of freedom."""
    degrees_of_freedom: int
    """Number of pairs minus number of groups."""
    interval: Interval | None
    """Student's t interval of the mean; None without degrees of freedom or without variance in all groups."""
    p_value: float | None
    """Two-sided p-value of a zero mean; None if there is no interval, except 1 if all differences are 0."""


def pooled_difference(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]], *, confidence: float = 0.95
) -> PooledDifference:
    """Compare two variants by paired differences in several groups, and average the groups' means.

    Groups are fixed effects: the result holds for these groups, not for a population of groups. The variance is
    estimated within groups and pooled: s² is the sum of squares around the groups' means divided by the degrees of
    freedom, the sum over groups of (pairs - 1). The mean over N groups has the standard error sqrt(Σ s²/n) / N. Assumes
    normally distributed differences of equal variance in all groups, and independent pairs.

    Args:
        groups: for each group the values and the numbers to subtract, in the same order; at least one group.
        confidence: two-sided confidence level of the interval, between 0 and 1.

    Raises:
        InputError: no groups, a group without pairs or with lists of different lengths, a number that is not finite,
            or a confidence level out of range.
    """
    check_confidence(confidence)
    if not groups:
        raise InputError("groups", groups, "must have at least one entry")
    differences, rounding = [], 0.0
    for index, (values, base) in enumerate(groups):
        first, second = check_numbers(f"groups[{index}].values", values), check_numbers(f"groups[{index}].base", base)
        if len(first) != len(second):
            rule = f"must have one entry for each value: {len(first)}, not {len(second)}"
            raise InputError(f"groups[{index}].base", base, rule)
        differences.append(first - second)
        rounding = max(rounding, rounding_error(first, second))
    pairs = tuple(map(len, differences))
    means = [fmean(group) for group in differences]
    mean, freedom = fmean(means), sum(pairs) - len(pairs)
    mean = 0.0 if abs(mean) <= rounding else mean
    if not freedom:
        return PooledDifference(pairs, mean, None, 0, None, None)
    if all(np.ptp(group) <= rounding for group in differences):
        p_value = 1.0 if all(abs(each) <= rounding for each in means) else None
        return PooledDifference(pairs, mean, 0.0, freedom, None, p_value)
    squares = sum(float(((group - center) ** 2).sum()) for group, center in zip(differences, means, strict=True))
    deviation = math.sqrt(squares / freedom)
    error = deviation * math.sqrt(sum(1 / count for count in pairs)) / len(pairs)
    from scipy.stats import t

    half_width = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, freedom))
    return PooledDifference(pairs, mean, deviation, freedom, Interval(mean - half_width, mean + half_width), p_value)
