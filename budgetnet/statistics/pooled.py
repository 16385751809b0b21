"""One difference over several groups of pairs, such as the networks of a study.

Source:
    H. Scheffé (1959), "The Analysis of Variance", chapter 3: linear functions of the means of a one-way layout with
    fixed effects. The observations are here the differences of pairs, and the groups are the layout's classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from budgetnet.common.errors import InputError
from budgetnet.statistics.checks import check_confidence, numbers, rounding_of
from budgetnet.statistics.intervals import Interval


class PooledDifference(NamedTuple):
    """What groups of pairs say together of the difference between two variants."""

    pairs: tuple[int, ...]
    """Pairs in each group."""
    mean: float
    """Mean of the groups' mean differences, first less second; each group has the same weight."""
    standard_deviation: float | None
    """Of the differences around their own group's mean; None without degrees of freedom."""
    degrees_of_freedom: int
    """Pairs less groups."""
    interval: Interval | None
    """Student's, of the mean; None without degrees of freedom, and where no group's differences show any spread."""
    p_value: float | None
    """Two-sided, of the mean being 0; None where there is no interval, unless all differences are 0: then it is 1."""


def pooled_difference(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]], *, confidence: float = 0.95
) -> PooledDifference:
    """Compare two variants by pairs in several groups, and average the groups' mean differences.

    The groups are fixed: the answer is about these and not about others like them. Each may have a mean difference of
    its own, so the variance is estimated within groups and pooled over them: s² is the sum of squares around the
    groups' means divided by the degrees of freedom, the sum over the groups of (pairs - 1). The mean of N groups has
    the standard error sqrt(Σ s²/n) / N. It assumes normal differences that scatter alike in all groups, and pairs that
    are independent between groups.

    Args:
        groups: for each group the values, and the numbers to take away in the same order; at least one group.
        confidence: the two-sided confidence level of the interval, between 0 and 1.

    Raises:
        InputError: no groups, a group without pairs or with unequal numbers of values, a number that is not finite, or
            a confidence level out of range.
    """
    check_confidence(confidence)
    if not groups:
        raise InputError("groups", groups, "must be at least one")
    differences, rounding = [], 0.0
    for place, (values, base) in enumerate(groups):
        first, second = numbers(f"groups[{place}].values", values), numbers(f"groups[{place}].base", base)
        if len(first) != len(second):
            rule = f"must be as many as the values: {len(first)}, not {len(second)}"
            raise InputError(f"groups[{place}].base", base, rule)
        differences.append(first - second)
        rounding = max(rounding, rounding_of(first, second))
    pairs = tuple(map(len, differences))
    means = [fmean(group) for group in differences]
    mean, freedom = fmean(means), sum(pairs) - len(pairs)
    mean = 0.0 if abs(mean) <= rounding else mean
    if not freedom:
        return PooledDifference(pairs, mean, None, 0, None, None)
    if all(np.ptp(group) <= rounding for group in differences):
        p_value = 1.0 if all(abs(each) <= rounding for each in means) else None
        return PooledDifference(pairs, mean, 0.0, freedom, None, p_value)
    squares = sum(float(((group - own) ** 2).sum()) for group, own in zip(differences, means, strict=True))
    deviation = math.sqrt(squares / freedom)
    error = deviation * math.sqrt(sum(1 / count for count in pairs)) / len(pairs)
    from scipy.stats import t

    reach = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, freedom))
    return PooledDifference(pairs, mean, deviation, freedom, Interval(mean - reach, mean + reach), p_value)
