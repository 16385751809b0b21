"""Confidence intervals against scipy, Newcombe's published values and simulated coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from budgetnet.common.errors import InputError
from budgetnet.statistics.intervals import (
    Interval,
    correct_count,
    difference_interval,
    exceeds_noise,
    gap_interval,
    mean_interval,
    wilson_interval,
)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    total = draw(st.integers(1, 20_000))
    return draw(st.integers(0, total)), total


levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


@given(counts(), levels)
def test_wilson_interval_matches_scipy(count: tuple[int, int], confidence: float) -> None:
    successes, total = count
    expected = binomtest(successes, total).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson_interval(successes, total, confidence=confidence) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_interval_of_the_reference_accuracy() -> None:
    low, high = wilson_interval(9_141, 10_000)
    assert low == pytest.approx(0.9084, abs=5e-5)
    assert high == pytest.approx(0.9194, abs=5e-5)


@given(counts(), levels)
def test_wilson_interval_contains_the_proportion_and_is_symmetric_in_failures(
    count: tuple[int, int], confidence: float
) -> None:
    successes, total = count
    interval = wilson_interval(successes, total, confidence=confidence)
    mirrored = wilson_interval(total - successes, total, confidence=confidence)
    assert 0 <= interval.low <= successes / total <= interval.high <= 1
    assert mirrored == pytest.approx((1 - interval.high, 1 - interval.low), abs=1e-12)


@pytest.mark.parametrize("total", [1, 3, 7, 10_000])
def test_wilson_interval_is_exact_at_zero_and_all_successes(total: int) -> None:
    zero, full = wilson_interval(0, total), wilson_interval(total, total)
    assert zero.low == 0
    assert 0 < zero.high < 1
    assert full.high == 1
    assert 0 < full.low < 1


def test_higher_confidence_gives_a_wider_interval() -> None:
    widths = [high - low for low, high in (wilson_interval(80, 100, confidence=level) for level in (0.5, 0.9, 0.99))]
    assert widths == sorted(set(widths))


def test_confidence_just_below_one() -> None:
    low, high = wilson_interval(5_000, 10_000, confidence=math.nextafter(1, 0))
    assert 0.4 < low < 0.5 < high < 0.6


# Newcombe (1998), table II, the rows of method 10 (score, without continuity correction), 95 %.
NEWCOMBE_TABLE_II = [
    ((56, 70, 48, 80), (0.0524, 0.3339)),
    ((9, 10, 3, 10), (0.1705, 0.8090)),
    ((6, 7, 2, 7), (0.0582, 0.8062)),
    ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ((0, 10, 0, 20), (-0.1611, 0.2775)),
    ((0, 10, 0, 10), (-0.2775, 0.2775)),
    ((10, 10, 0, 20), (0.6791, 1.0)),
    ((10, 10, 0, 10), (0.6075, 1.0)),
]


@pytest.mark.parametrize(("groups", "published"), NEWCOMBE_TABLE_II)
def test_difference_interval_matches_the_published_table(
    groups: tuple[int, int, int, int], published: tuple[float, float]
) -> None:
    assert difference_interval(*groups) == pytest.approx(published, abs=5e-5)


@given(counts(), counts(), levels)
def test_difference_interval_contains_the_difference_and_is_antisymmetric(
    a: tuple[int, int], b: tuple[int, int], confidence: float
) -> None:
    interval = difference_interval(*a, *b, confidence=confidence)
    swapped = difference_interval(*b, *a, confidence=confidence)
    assert -1 <= interval.low <= a[0] / a[1] - b[0] / b[1] <= interval.high <= 1
    assert swapped == pytest.approx((-interval.high, -interval.low), abs=1e-12)


SAMPLES = 20_000
COVERAGE_MARGIN = 0.01
"""Six standard errors of the coverage at 95 %, and a margin because counts are discrete."""


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_of_the_wilson_interval(confidence: float) -> None:
    generator = np.random.default_rng(1927)
    truths = generator.uniform(0.7, 0.99, SAMPLES)
    intervals = [
        wilson_interval(successes, 1_000, confidence=confidence) for successes in generator.binomial(1_000, truths)
    ]
    covered = np.mean([low <= truth <= high for truth, (low, high) in zip(truths, intervals, strict=True)])
    assert covered == pytest.approx(confidence, abs=COVERAGE_MARGIN)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_of_the_difference_interval(confidence: float) -> None:
    generator = np.random.default_rng(1998)
    truths = generator.uniform(0.7, 0.99, (2, SAMPLES))
    covered = 0
    for a, b, truth in zip(
        generator.binomial(1_000, truths[0]), generator.binomial(300, truths[1]), truths[0] - truths[1], strict=True
    ):
        low, high = difference_interval(a, 1_000, b, 300, confidence=confidence)
        covered += low <= truth <= high
    assert covered / SAMPLES == pytest.approx(confidence, abs=COVERAGE_MARGIN)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.001, 0.02), True),
        (Interval(-0.02, -0.001), True),
        (Interval(-0.001, 0.02), False),
        (Interval(0.0, 0.02), False),
        (Interval(-0.02, 0.0), False),
    ],
)
def test_exceeds_noise_if_the_interval_excludes_zero(interval: Interval, expected: bool) -> None:
    assert exceeds_noise(interval) is expected


def test_one_point_is_significant_on_ten_thousand_images_and_half_a_point_is_not() -> None:
    assert not exceeds_noise(difference_interval(9_191, 10_000, 9_141, 10_000))
    assert exceeds_noise(difference_interval(9_241, 10_000, 9_141, 10_000))


@pytest.mark.parametrize(
    ("accuracy", "total", "expected"),
    [(0.9141, 10_000, 9_141), (0.914, 9_999, 9_139), (0.0, 10, 0), (1.0, 10, 10), (0.999, 10, 10), (0.29, 100, 29)],
)
def test_accuracy_count_rounds_to_the_nearest(accuracy: float, total: int, expected: int) -> None:
    assert correct_count(accuracy, total) == expected


@given(counts())
def test_accuracy_count_inverts_the_division(count: tuple[int, int]) -> None:
    successes, total = count
    assert correct_count(successes / total, total) == successes


@pytest.mark.parametrize("accuracy", [-0.01, 1.01, 91.41, math.nan, math.inf])
def test_accuracy_count_rejects_values_that_are_not_shares(accuracy: float) -> None:
    with pytest.raises(InputError, match="share from 0 to 1") as caught:
        correct_count(accuracy, 10_000)
    assert caught.value.field == "accuracy"


@pytest.mark.parametrize(
    ("successes", "total", "field"),
    [
        (-1, 10, "successes"),
        (11, 10, "successes"),
        (2.5, 10, "successes"),
        (0, 0, "total"),
        (0, -5, "total"),
        (1, 10.0, "total"),
        (1, None, "total"),
    ],
)
def test_errors_name_the_invalid_count(successes: Any, total: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        wilson_interval(successes, total)
    assert caught.value.field == field
    with pytest.raises(InputError) as caught:
        difference_interval(successes, total, 1, 2)
    assert caught.value.field == f"{field}_a"
    with pytest.raises(InputError) as caught:
        difference_interval(1, 2, successes, total)
    assert caught.value.field == f"{field}_b"
    if field == "total":
        with pytest.raises(InputError) as caught:
            correct_count(0.5, total)
        assert caught.value.field == "total"


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, math.nan])
def test_confidence_must_be_between_zero_and_one(confidence: float) -> None:
    with pytest.raises(InputError) as caught:
        wilson_interval(1, 2, confidence=confidence)
    assert caught.value.field == "confidence"
    with pytest.raises(InputError) as caught:
        difference_interval(1, 2, 1, 2, confidence=confidence)
    assert caught.value.field == "confidence"


def test_numpy_counts_give_python_floats() -> None:
    interval = wilson_interval(np.int64(9_141), np.int64(10_000))  # type: ignore[arg-type]
    assert interval == wilson_interval(9_141, 10_000)
    assert all(type(end) is float for end in interval)


# Two-sided 95 % critical values of Student's t distribution, from a published table.
CRITICAL_VALUES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 10: 2.262, 30: 2.045}


@pytest.mark.parametrize(("count", "critical_value"), CRITICAL_VALUES.items())
def test_mean_interval_matches_the_table_of_students_t(count: int, critical_value: float) -> None:
    values = [0.9 + 0.01 * step for step in range(count)]
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(mean)
    assert high - mean == pytest.approx(critical_value * spread / math.sqrt(count), rel=1e-3)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_of_the_mean_interval(confidence: float) -> None:
    samples = np.random.default_rng(3).normal(0.93, 0.004, size=(4000, 3))
    intervals = [mean_interval(list(row), confidence=confidence) for row in samples]
    covered = sum(low <= 0.93 <= high for low, high in intervals) / len(intervals)
    assert covered == pytest.approx(confidence, abs=0.02)


@pytest.mark.parametrize("values", [[], [0.9]])
def test_mean_interval_needs_two_values(values: list[float]) -> None:
    with pytest.raises(InputError, match="at least two"):
        mean_interval(values)


def test_gap_interval_by_hand() -> None:
    # Half widths 3 and 4 combine to sqrt(3² + 4²) = 5.
    assert gap_interval(90, Interval(87, 93), 80, Interval(76, 84)) == (5, 15)
    # Asymmetric: the lower end combines the first one's lower and the second one's upper half width, and vice versa.
    assert gap_interval(90, Interval(87, 95), 80, Interval(68, 84)) == (5, 23)
