"""Variants compared pair by pair, and many such comparisons at once.

Sources:
    Student (1908), "The Probable Error of a Mean", Biometrika 6(1), 1-25.
    B. Efron (1987), "Better Bootstrap Confidence Intervals", Journal of the American Statistical Association 82(397),
    171-185.
    R. A. Fisher (1935), "The Design of Experiments", section 21: the test by changes of sign.
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
from budgetnet.statistics.checks import check_confidence, numbers, rounding_of, whole
from budgetnet.statistics.intervals import Interval, mean_interval

_FLIPS = 2**16
"""Patterns of signs that are looked at: all of them up to 16 pairs, as many drawn ones beyond."""


class Difference(NamedTuple):
    """What pairs of measurements say of the difference between two variants."""

    n: int
    """Pairs."""
    mean: float
    """Mean of the differences, first less second."""
    standard_deviation: float | None
    """Of the differences, with n - 1 in the denominator; None for one pair."""
    interval: Interval | None
    """Of the mean difference; None for one pair, and where the differences show no spread to make one from."""
    p_value: float | None
    """Two-sided; None for one pair."""
    method: str
    """What was done: ``paired t``, ``bootstrap``, ``sign flips`` where there is no spread, ``one pair``."""


def paired_difference(
    values: Sequence[float],
    base: Sequence[float],
    *,
    confidence: float = 0.95,
    method: Literal["t", "bootstrap"] = "t",
    seed: int = 0,
) -> Difference:
    """The mean difference of pairs, such as two variants trained with the same seeds, and whether it is noise.

    ``t`` is for few pairs: it takes the differences as normal and pays for the few. ``bootstrap`` assumes less: the
    interval by resampling pairs (bias-corrected and accelerated; by plain percentiles where acceleration is undefined),
    the p-value from the share of sign patterns whose mean is at least as far from 0, of all patterns up to 16 pairs, of
    65,536 drawn ones beyond. It needs more pairs: of normal differences its 95 % interval held the truth in 73 % of
    1,500 draws of 3 pairs, 85 % of 5 and 90 % of 10, and below 6 pairs its p-value cannot fall to 0.05.

    Differences that are all equal, up to rounding, leave t undefined: a few agreeing pairs do not prove that no pair
    could disagree. Then there is no interval under either method, and the p-value is that of the signs alone: 1 if all
    differences are 0, else 2 to the power 1 - n.

    Args:
        values: one number for each pair, at least one.
        base: the numbers to take away, in the same order.
        confidence: the two-sided confidence level of the interval, between 0 and 1.
        method: how interval and p-value are made.
        seed: of the resampling.

    Raises:
        InputError: no pairs, unequal numbers, a number that is not finite, or an option out of range.
    """
    check_confidence(confidence)
    if method not in ("t", "bootstrap"):
        raise InputError("method", method, "must be t or bootstrap")
    seed = whole("seed", seed, least=0)
    first, second = numbers("values", values), numbers("base", base)
    if len(first) != len(second):
        raise InputError("base", base, f"must be as many as the values: {len(first)}, not {len(second)}")
    differences = first - second
    count, mean, rounding = len(differences), fmean(differences), rounding_of(first, second)
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
    """Holm's step-down adjusted p-values: those below a level, of all rows together, are wrong at most that often.

    Args:
        p_values: one for each row; None for a row that was not tested, which does not count.
        planned: number of tests that were meant, where some of them are still to come: as if those had given 1.

    Returns:
        The adjusted values in the same order, at most 1; None stays None.

    Raises:
        InputError: a p-value lies outside 0 and 1.
    """
    for place, value in enumerate(p_values):
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"p_values[{place}]", value, "must lie from 0 to 1")
    tested = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest, count = 0.0, max(planned, len(tested))
    for rank, (value, place) in enumerate(tested):
        largest = max(largest, min(1.0, float(value) * (count - rank)))
        adjusted[place] = largest
    return adjusted


def _bootstrap_interval(differences: npt.NDArray[np.float64], confidence: float, seed: int) -> Interval:
    from scipy.stats import bootstrap

    low = high = math.nan
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # Where the acceleration is 0 divided by 0, scipy warns and answers NaN: then the next method answers.
            warnings.simplefilter("ignore", RuntimeWarning)
            found = bootstrap(
                (differences,),
                np.mean,
                confidence_level=confidence,
                method=method,
                batch=_batch(differences),
                rng=seed,
            )
        low, high = map(float, found.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Interval(low, high)


def _sign_flip_p_value(differences: npt.NDArray[np.float64], least: float, seed: int) -> float:
    """How often the mean is so far from 0 when each difference has either sign; exact if the patterns suffice."""
    from scipy.stats import permutation_test

    def is_far(flipped: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        # Compared here, because scipy takes means for different that differ by rounding alone; accuracies often tie.
        return np.asarray(np.abs(flipped.mean(axis=axis)) >= least, dtype=np.float64)

    found = permutation_test(
        (differences,),
        is_far,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=_FLIPS,
        batch=_batch(differences),
        rng=seed,
    )
    return float(found.pvalue)


def _batch(differences: npt.NDArray[np.float64]) -> int:
    """How many resamples are made at once: 32 MiB of them."""
    return max(1, 2**22 // len(differences))
