"""Comparison with a published accuracy against scipy, hand calculations and simulated rejection rates."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp, ttest_ind_from_stats
from statsmodels.stats.proportion import proportions_ztest

from budgetnet.common.errors import InputError
from budgetnet.statistics import compare_with_published
from budgetnet.statistics.intervals import difference_interval


def test_one_run_gives_the_score_test_of_two_proportions() -> None:
    # 92.41 % and 91.41 % of 10,000: pooled 0.9191, z = 0.01 / √(0.9191 · 0.0809 · 2 / 10,000) = 2.59316.
    result = compare_with_published([0.9241], images=10_000, published=0.9141, published_images=10_000)
    assert result.p_value == pytest.approx(2 * (1 - NormalDist().cdf(2.59316)), rel=1e-4)
    assert result.p_value == pytest.approx(proportions_ztest([9_241, 9_141], [10_000, 10_000])[1], rel=1e-9)
    assert result.interval == difference_interval(9_241, 10_000, 9_141, 10_000)
    assert result.difference == pytest.approx(0.01)
    assert result[:4] == (1, 0.9241, None, 0.9141)
    assert result[-2:] == ("score test of two independent proportions", None)


RUNS = [[0.9, 0.93], [0.912, 0.9165, 0.9151], [0.9141, 0.9152, 0.9139, 0.9171, 0.918]]


@pytest.mark.parametrize("runs", RUNS)
def test_negligible_published_variance_gives_the_one_sample_t_test(runs: list[float]) -> None:
    result = compare_with_published(runs, images=10_000, published=0.9141, published_images=10**15)
    expected = ttest_1samp(runs, 0.9141)
    low, high = expected.confidence_interval(0.95)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert result.interval == pytest.approx((low - 0.9141, high - 0.9141), rel=1e-6)
    assert result.degrees_of_freedom == pytest.approx(len(runs) - 1)
    assert result.standard_deviation == pytest.approx(np.std(runs, ddof=1))
    assert result.test == "t test of the runs' mean, with the published number's binomial noise"


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("published_images", [50, 10_000])
def test_both_variances_give_welchs_test(runs: list[float], published_images: int) -> None:
    result = compare_with_published(runs, images=10_000, published=0.91, published_images=published_images)
    # A known variance, as from a sample of 10^9.
    size = 10**9
    deviation = math.sqrt(0.91 * 0.09 / published_images * size)
    expected = ttest_ind_from_stats(
        np.mean(runs), np.std(runs, ddof=1), len(runs), 0.91, deviation, size, equal_var=False
    )
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    # The interval with confidence 1 - p ends exactly at 0.
    touching = compare_with_published(
        runs, images=10_000, published=0.91, published_images=published_images, confidence=1 - result.p_value
    )
    assert min(map(abs, touching.interval)) == pytest.approx(0, abs=1e-12)
    assert sum(touching.interval) / 2 == pytest.approx(np.mean(runs) - 0.91)


def test_runs_without_variance_give_a_normal_test() -> None:
    result = compare_with_published([0.1 + 0.2, 0.3, 0.3], images=1_000, published=0.25, published_images=400)
    error = math.sqrt(0.25 * 0.75 / 400)
    assert result.p_value == pytest.approx(2 * NormalDist().cdf(-0.05 / error))
    assert result.interval == pytest.approx((0.05 - 1.959964 * error, 0.05 + 1.959964 * error), rel=1e-6)
    assert result.standard_deviation == 0
    assert result[-2:] == ("normal test of the runs' mean, with the published number's binomial noise", None)


@pytest.mark.parametrize(
    ("runs", "published"), [([0.9, 0.9], 1.0), ([1.0, 1.0, 1.0], 1.0), ([0.0], 0.0), ([0.0, 0.0], 1.0), ([1.0], 0.3)]
)
def test_no_variance_at_all_gives_the_score_test_of_two_proportions(runs: list[float], published: float) -> None:
    result = compare_with_published(runs, images=200, published=published, published_images=100)
    correct, published_correct = round(runs[0] * 200), round(published * 100)
    assert result.interval == difference_interval(correct, 200, published_correct, 100)
    same = correct / 200 == published
    expected = 1 if same else proportions_ztest([correct, published_correct], [200, 100])[1]
    assert result.p_value == pytest.approx(expected, rel=1e-9)
    assert result.test == "score test of two independent proportions"


@pytest.mark.parametrize("published", [0.0, 1.0])
def test_published_zero_or_one_gives_the_one_sample_t_test(published: float) -> None:
    result = compare_with_published([0.5, 0.6, 0.4], images=10, published=published, published_images=10)
    assert result.p_value == pytest.approx(ttest_1samp([0.5, 0.6, 0.4], published).pvalue, rel=1e-9)
    assert result.degrees_of_freedom == 2


@pytest.mark.parametrize(
    ("seed_noise", "published_seed_noise", "rate"), [(0.002, 0.0, 0.05), (0.002, 0.002, 0.1), (0.005, 0.005, 0.197)]
)
def test_rejection_rates_without_a_true_difference_are_as_documented(
    seed_noise: float, published_seed_noise: float, rate: float
) -> None:
    simulations, generator = 1500, np.random.default_rng(1947)
    rejected = 0
    for _ in range(simulations):
        published = generator.binomial(10_000, generator.normal(0.91, published_seed_noise)) / 10_000
        runs = generator.normal(0.91, seed_noise, 3).tolist()
        result = compare_with_published(runs, images=10_000, published=published, published_images=10_000)
        rejected += result.p_value <= 0.05
    assert binom.ppf(0.0005, simulations, rate) <= rejected <= binom.ppf(0.9995, simulations, rate)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("values", []),
        ("values", [91.41]),
        ("values", [0.9, -0.1]),
        ("values", [0.9, math.nan]),
        ("published", 91.41),
        ("published", math.nan),
        ("images", 0),
        ("images", 99.5),
        ("published_images", 0),
        ("published_images", None),
        ("confidence", 0),
    ],
)
def test_errors_name_the_invalid_argument(field: str, value: Any) -> None:
    valid: dict[str, Any] = {"values": [0.9], "images": 100, "published": 0.9, "published_images": 100}
    with pytest.raises(InputError) as caught:
        compare_with_published(**{**valid, field: value})
    assert caught.value.field == field
