"""Two networks on the same images, against statsmodels, printed intervals and the answers themselves."""

from __future__ import annotations

import math
from typing import Any, Literal

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

METHODS: tuple[Literal["t", "bootstrap"], ...] = ("t", "bootstrap")


def right_answers(counts: tuple[int, int, int, int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Images in an order that mixes both right, only the first, only the second, neither."""
    order = np.random.default_rng(0).permutation(sum(counts))
    return np.repeat([True, True, False, False], counts)[order], np.repeat([True, False, True, False], counts)[order]


def test_mcnemar_by_hand() -> None:
    # Of 8 fair coins, 1 head or fewer, or 7 or more: 2 · (1 + 8) / 256.
    assert mcnemar(1, 7).p_value == pytest.approx(18 / 256)
    assert mcnemar(1, 7)[:2] == (1, 7)
    assert mcnemar(0, 0).p_value == 1


@pytest.mark.parametrize("only_first", [0, 1, 4, 30, 200])
@pytest.mark.parametrize("only_second", [0, 3, 30, 170])
def test_mcnemar_is_statsmodels(only_first: int, only_second: int) -> None:
    expected = statsmodels_mcnemar([[7, only_first], [only_second, 9]], exact=True).pvalue
    assert mcnemar(only_first, only_second).p_value == pytest.approx(expected, rel=1e-9)


# Both right, only the first, only the second, neither; and the 95 % interval by Newcombe's method 10. From Newcombe
# (1998), Fagerland, Lydersen and Laake (2014 and 2017), Tang and others (2010) and Chang and others (2024), as the R
# packages ratesci and contingencytables quote them in their tests.
PRINTED = [
    ((20, 12, 2, 16), (0.0562, 0.3292), 4),
    ((1, 1, 7, 12), (-0.507, -0.026), 3),
    ((59, 6, 16, 80), (-0.1186, -0.0046), 4),
    ((8, 3, 1, 2), (-0.1574, 0.4136), 4),
    ((7, 25, 2, 68), (0.133, 0.318), 3),
]


@pytest.mark.parametrize(("counts", "interval", "digits"), PRINTED)
def test_the_paired_interval_agrees_with_printed_ones(
    counts: tuple[int, int, int, int], interval: tuple[float, float], digits: int
) -> None:
    result = compare_predictions(*right_answers(counts))
    assert result.interval == pytest.approx(interval, abs=0.51 * 10**-digits)
    assert result.images == sum(counts)
    assert result.difference == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert result.mcnemar[:2] == counts[1:3]


def test_mcnemars_p_value_agrees_with_a_printed_one() -> None:
    # Cavo and others (2012), worked in Fagerland, Lydersen and Laake (2017), chapter 8, as contingencytables quotes it.
    assert compare_predictions(*right_answers((59, 6, 16, 80))).mcnemar.p_value == pytest.approx(0.052479, abs=5e-7)


tables = st.tuples(*[st.integers(0, 400)] * 4).filter(any)


@given(tables, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_paired_interval_from_the_answers_themselves(counts: Any, confidence: float) -> None:
    first, second = right_answers(counts)
    images, shares = sum(counts), np.array([first.mean(), second.mean()])
    ends = np.array(
        [
            binomtest(int(right.sum()), images).proportion_ci(confidence_level=confidence, method="wilson")
            for right in (first, second)
        ]
    )
    correlation = 0.0
    if first.std() and second.std():
        correlation = np.corrcoef(first, second)[0, 1]
        if correlation > 0:
            correlation = max(correlation - 1 / (2 * images * first.std() * second.std()), 0)
    correlations = np.array([[1, -correlation], [-correlation, 1]])
    down, up = shares - ends[:, 0], ends[:, 1] - shares
    reaches = [np.array([down[0], up[1]]), np.array([up[0], down[1]])]
    low, high = (math.sqrt(max(reach @ correlations @ reach, 0)) for reach in reaches)
    result = compare_predictions(first, second, confidence=confidence)
    assert result.interval == pytest.approx((result.difference - low, result.difference + high), abs=1e-7)
    assert -1 - 1e-12 <= result.interval.low <= result.difference <= result.interval.high <= 1 + 1e-12
    swapped = compare_predictions(second, first, confidence=confidence)
    assert swapped.interval == pytest.approx((-result.interval.high, -result.interval.low), abs=1e-12)


def test_networks_that_fail_on_the_same_images_are_told_apart_sooner() -> None:
    # 60 images' worth of accuracy between networks that disagree on 140 of 10,000: noise of independent test sets would
    # hide it, the same images do not.
    result = compare_predictions(*right_answers((9_000, 100, 40, 860)))
    assert result.interval.low > 0
    assert result.mcnemar.p_value < 1e-5
    assert difference_interval(9_100, 10_000, 9_040, 10_000).low < 0


@pytest.mark.parametrize("counts", [(-1, 2), (1.5, 2), ("1", 2)])
def test_bad_counts_are_named(counts: Any) -> None:
    with pytest.raises(InputError) as caught:
        mcnemar(*counts)
    assert caught.value.field == "only_first"
    with pytest.raises(InputError) as caught:
        mcnemar(*reversed(counts))
    assert caught.value.field == "only_second"


@pytest.mark.parametrize("wrong", [np.zeros(0, bool), np.zeros((2, 2), bool), np.array([1, 0]), np.array([0.5, 0.5])])
def test_bad_answers_are_named(wrong: Any) -> None:
    right = np.array([True, False])
    with pytest.raises(InputError) as caught:
        compare_predictions(wrong, right)
    assert caught.value.field == "first_right"
    with pytest.raises(InputError) as caught:
        compare_predictions(right, wrong)
    assert caught.value.field == "second_right"
    with pytest.raises(InputError, match="3, not 2"):
        compare_predictions(np.array([True, False, True]), right)
    with pytest.raises(InputError, match="confidence"):
        compare_predictions(right, right, confidence=1)
