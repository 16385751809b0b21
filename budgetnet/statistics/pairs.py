"""Paired comparison of two variants, and Holm's correction for multiple comparisons.

Sources:
    Student (1908), "The Probable Error of a Mean", Biometrika 6(1), 1-25.
    B. Efron (1987), "Better Bootstrap Confidence Intervals", Journal of the American Statistical Association 82(397),
    171-185.
    R. A. Fisher (1935), "The Design of Experiments", section 21: the sign-flip permutation test.
    S. Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6(2),
    65-70.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import InputError
from budgetnet.statistics.checks import check_confidence, check_integer, check_numbers, rounding_error
from budgetnet.statistics.intervals import Interval, mean_interval

_MAX_SIGN_PATTERNS = 2**16
"""Maximum number of sign patterns: all of them up to 16 pairs, a random sample beyond."""


class Difference(NamedTuple):
    """Mean paired difference between two variants, with interval and p-value."""

    n: int
    """Number of pairs."""
    mean: float
    """Mean of the differences, first minus second."""
    standard_deviation: float | None
    """Standard deviation of the differences (n - 1 in the denominator); None for one pair."""
    interval: Interval | None
    """Interval of the mean difference; None for one pair or without variance."""
    p_value: float | None
    """Two-sided p-value; None for one pair."""
    method: str
    """``paired t``, ``bootstrap``, ``sign flips`` (no variance) or ``one pair``."""


def paired_difference(
    values: Sequence[float],
    base: Sequence[float],
    *,
    confidence: float = 0.95,
    method: Literal["t", "bootstrap"] = "t",
    seed: int = 0,
) -> Difference:
    """Compare two variants by paired differences, such as accuracies of training runs with the same seeds.

    ``t`` is the paired t test, for few pairs; it assumes normally distributed differences. ``bootstrap`` does not: its
    interval is the BCa bootstrap interval (the percentile interval if the acceleration is undefined), and its p-value
    is from the sign-flip permutation test, exact up to 16 pairs and with 65,536 sampled patterns beyond. It needs more
    pairs: in 1,500 simulations with normal differences, its 95 % interval contained the true mean in 73 % with 3 pairs,
    85 % with 5 and 90 % with 10, and with fewer than 6 pairs its p-value cannot reach 0.05.

    If all differences are equal up to rounding, both methods return no interval and the p-value of the sign-flip test:
    1 if all differences are 0, otherwise 2^(1 - n).

    Args:
        values: one number for each pair, at least one.
        base: the numbers to subtract, in the same order.
        confidence: two-sided confidence level of the interval, between 0 and 1.
        method: method for interval and p-value.
        seed: random seed of the resampling.

    Raises:
        InputError: no pairs, lists of different lengths, a number that is not finite, or an option out of range.
    """
    check_confidence(confidence)
    if method not in ("t", "bootstrap"):
        raise InputError("method", method, "must be t or bootstrap")
    seed = check_integer("seed", seed, least=0)
    first, second = check_numbers("values", values), check_numbers("base", base)
    if len(first) != len(second):
        raise InputError("base", base, f"must have one entry for each value: {len(first)}, not {len(second)}")
    differences = first - second
    count, mean, rounding = len(differences), fmean(differences), rounding_error(first, second)
    if count == 1:
        return Difference(1, mean, None, None, None, "one pair")
    if np.ptp(differences) <= rounding:
        mean = 0.0 if abs(mean) <= rounding else mean
        return Difference(count, mean, 0.0, None, 2.0 ** (1 - count) if mean else 1.0, "sign flips")
    deviation = stdev(differences.tolist())
    if method == "bootstrap":
        interval = _bootstrap_interval(differences, confidence, seed)
        p_value = _sign_flip_p_value(differences, abs(mean) - rounding, seed)
        return Difference(count, mean, deviation, interval, p_value, "bootstrap")
    from scipy.stats import t

    interval = mean_interval(differences.tolist(), confidence=confidence)
    p_value = 2 * float(t.sf(abs(mean) / (deviation / math.sqrt(count)), count - 1))
    return Difference(count, mean, deviation, interval, p_value, "paired t")


def holm(p_values: Sequence[float | None], *, planned: int = 0) -> list[float | None]:
    """Adjust p-values by Holm's step-down method, which controls the family-wise error rate.

    Args:
        p_values: one for each comparison; None for a comparison that was not tested and is not counted.
        planned: total number of planned tests; pending ones are counted as if their p-value were 1.

    Returns:
        The adjusted p-values in the same order, at most 1; None where the input is None.

    Raises:
        InputError: a p-value is not from 0 to 1.
    """
    for index, value in enumerate(p_values):
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"p_values[{index}]", value, "must be from 0 to 1")
    tested = sorted((value, index) for index, value in enumerate(p_values) if value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest, count = 0.0, max(planned, len(tested))
    for rank, (value, index) in enumerate(tested):
        largest = max(largest, min(1.0, float(value) * (count - rank)))
        adjusted[index] = largest
    return adjusted


def _bootstrap_interval(differences: npt.NDArray[np.float64], confidence: float, seed: int) -> Interval:
    from scipy.stats import bootstrap

    low = high = math.nan
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # If the acceleration is 0 / 0, scipy warns and returns NaN; the percentile method is the fallback.
            warnings.simplefilter("ignore", RuntimeWarning)
            result = bootstrap(
                (differences,),
                np.mean,
                confidence_level=confidence,
                method=method,
                batch=_batch(differences),
                rng=seed,
            )
        low, high = map(float, result.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Interval(low, high)


def _sign_flip_p_value(differences: npt.NDArray[np.float64], observed: float, seed: int) -> float:
    """Return the share of sign patterns whose absolute mean is at least ``observed``."""
    from scipy.stats import permutation_test

    def is_extreme(flipped: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        # Compared here with a tolerance: means of accuracies often tie, and scipy would count rounding errors.
        return np.asarray(np.abs(flipped.mean(axis=axis)) >= observed, dtype=np.float64)

    result = permutation_test(
        (differences,),
        is_extreme,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=_MAX_SIGN_PATTERNS,
        batch=_batch(differences),
        rng=seed,
    )
    return float(result.pvalue)


def _batch(differences: npt.NDArray[np.float64]) -> int:
    """Return the number of resamples to process at once: 32 MiB."""
    return max(1, 2**22 // len(differences))
