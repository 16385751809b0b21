"""Comparison of predictions on the same images against statsmodels, published intervals and the raw predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from budgetnet.common.errors import InputError
from budgetnet.statistics import compare_predictions, mcnemar
from budgetnet.statistics.intervals import difference_interval


def correct_predictions(counts: tuple[int, int, int, int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return shuffled correctness of two networks, from the counts of both, only first, only second and neither."""
    order = np.random.default_rng(0).permutation(sum(counts))
    return np.repeat([True, True, False, False], counts)[order], np.repeat([True, False, True, False], counts)[order]


def test_mcnemar_by_hand() -> None:
    # Eight fair coin flips with at most 1 or at least 7 heads: 2 · (1 + 8) / 256.
    assert mcnemar(1, 7).p_value == pytest.approx(18 / 256)
    assert mcnemar(1, 7)[:2] == (1, 7)
    assert mcnemar(0, 0).p_value == 1


@pytest.mark.parametrize("only_first", [0, 1, 4, 30, 200])
@pytest.mark.parametrize("only_second", [0, 3, 30, 170])
def test_mcnemar_matches_statsmodels(only_first: int, only_second: int) -> None:
    expected = statsmodels_mcnemar([[7, only_first], [only_second, 9]], exact=True).pvalue
    assert mcnemar(only_first, only_second).p_value == pytest.approx(expected, rel=1e-9)


# Counts of both correct, only first, only second and neither; 95 % interval by Newcombe's method 10; decimals printed.
# From Newcombe (1998), Fagerland, Lydersen and Laake (2014 and 2017), Tang et al. (2010) and Chang et al. (2024), as
# quoted in the tests of the R packages ratesci and contingencytables.
PUBLISHED_INTERVALS = [
    ((20, 12, 2, 16), (0.0562, 0.3292), 4),
    ((1, 1, 7, 12), (-0.507, -0.026), 3),
    ((59, 6, 16, 80), (-0.1186, -0.0046), 4),
    ((8, 3, 1, 2), (-0.1574, 0.4136), 4),
    ((7, 25, 2, 68), (0.133, 0.318), 3),
]


@pytest.mark.parametrize(("counts", "interval", "digits"), PUBLISHED_INTERVALS)
def test_paired_interval_matches_published_ones(
    counts: tuple[int, int, int, int], interval: tuple[float, float], digits: int
) -> None:
    result = compare_predictions(*correct_predictions(counts))
    assert result.interval == pytest.approx(interval, abs=0.51 * 10**-digits)
    assert result.images == sum(counts)
    assert result.difference == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert result.mcnemar[:2] == counts[1:3]


def test_mcnemar_p_value_matches_a_published_one() -> None:
    # Cavo et al. (2012), in Fagerland, Lydersen and Laake (2017), chapter 8, as quoted by contingencytables.
    assert compare_predictions(*correct_predictions((59, 6, 16, 80))).mcnemar.p_value == pytest.approx(
        0.052479, abs=5e-7
    )


tables = st.tuples(*[st.integers(0, 400)] * 4).filter(any)


@given(tables, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_paired_interval_matches_the_formula_on_raw_predictions(counts: Any, confidence: float) -> None:
    first, second = correct_predictions(counts)
    images, shares = sum(counts), np.array([first.mean(), second.mean()])
    ends = np.array(
        [
            binomtest(int(correct.sum()), images).proportion_ci(confidence_level=confidence, method="wilson")
            for correct in (first, second)
        ]
    )
    correlation = 0.0
    if first.std() and second.std():
        correlation = np.corrcoef(first, second)[0, 1]
        if correlation > 0:
            correlation = max(correlation - 1 / (2 * images * first.std() * second.std()), 0)
    correlations = np.array([[1, -correlation], [-correlation, 1]])
    lower, upper = shares - ends[:, 0], ends[:, 1] - shares
    half_widths = [np.array([lower[0], upper[1]]), np.array([upper[0], lower[1]])]
    low, high = (math.sqrt(max(each @ correlations @ each, 0)) for each in half_widths)
    result = compare_predictions(first, second, confidence=confidence)
    assert result.interval == pytest.approx((result.difference - low, result.difference + high), abs=1e-7)
    assert -1 - 1e-12 <= result.interval.low <= result.difference <= result.interval.high <= 1 + 1e-12
    swapped = compare_predictions(second, first, confidence=confidence)
    assert swapped.interval == pytest.approx((-result.interval.high, -result.interval.low), abs=1e-12)


def test_paired_comparison_detects_smaller_differences_than_independent_samples() -> None:
    # Two networks disagree on 140 of 10,000 images and differ by 60 in accuracy: significant on the same images, but
    # not for independent test sets.
    result = compare_predictions(*correct_predictions((9_000, 100, 40, 860)))
    assert result.interval.low > 0
    assert result.mcnemar.p_value < 1e-5
    assert difference_interval(9_100, 10_000, 9_040, 10_000).low < 0


@pytest.mark.parametrize("counts", [(-1, 2), (1.5, 2), ("1", 2)])
def test_errors_name_the_invalid_count(counts: Any) -> None:
    with pytest.raises(InputError) as caught:
        mcnemar(*counts)
    assert caught.value.field == "only_first"
    with pytest.raises(InputError) as caught:
        mcnemar(*reversed(counts))
    assert caught.value.field == "only_second"


@pytest.mark.parametrize("invalid", [np.zeros(0, bool), np.zeros((2, 2), bool), np.array([1, 0]), np.array([0.5, 0.5])])
def test_errors_name_the_invalid_array(invalid: Any) -> None:
    valid = np.array([True, False])
    with pytest.raises(InputError) as caught:
        compare_predictions(invalid, valid)
    assert caught.value.field == "first_correct"
    with pytest.raises(InputError) as caught:
        compare_predictions(valid, invalid)
    assert caught.value.field == "second_correct"
    with pytest.raises(InputError, match="3, not 2"):
        compare_predictions(np.array([True, False, True]), valid)
    with pytest.raises(InputError, match="confidence"):
        compare_predictions(valid, valid, confidence=1)
