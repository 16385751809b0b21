"""Paired differences and Holm's correction against scipy, statsmodels, brute force and simulated error rates."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, ttest_rel
from statsmodels.stats.multitest import multipletests

from budgetnet.common.errors import InputError
from budgetnet.statistics import holm, paired_difference

METHODS: tuple[Literal["t", "bootstrap"], ...] = ("t", "bootstrap")


def test_paired_t_test_by_hand() -> None:
    # Differences 1, 2, 3: t = 2 / (1 / √3). With 2 degrees of freedom P(|T| > t) = 1 - t / √(2 + t²), and the 95 %
    # critical value is 4.303.
    result = paired_difference([11, 22, 33], [10, 20, 30])
    t = 2 * math.sqrt(3)
    assert result[:3] == (3, 2.0, 1.0)
    assert result.interval == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), rel=1e-3)
    assert result.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert result.method == "paired t"


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_paired_t_test_matches_scipy(count: int, confidence: float) -> None:
    generator = np.random.default_rng(count)
    values, base = generator.normal(0.91, 0.01, count), generator.normal(0.9, 0.01, count)
    result = paired_difference(values.tolist(), base.tolist(), confidence=confidence)
    expected = ttest_rel(values, base)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert result.interval == pytest.approx(tuple(expected.confidence_interval(confidence)), rel=1e-9)


def brute_force_sign_flips(differences: list[int]) -> float:
    observed = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in patterns)
    return extreme / len(patterns)


# Means of different sign patterns tie here, but as accuracies they differ by rounding errors.
@pytest.mark.parametrize(
    "differences",
    [
        [1, 2],
        [3, 1, 2],
        [5, -1, 2, 2],
        [4, 4, -4, 1, 9, 2],
        [1, 0, 0, 3, -2, 7, 7, 1],
        [2, -2, 1, -1, 5],
        [0, 4, 7, -4],
        [2, -1, -5, -5, 11, -1],
        [-3, 11, 1, -5, 4, 2, 1, -3],
    ],
)
def test_sign_flip_p_value_matches_brute_force(differences: list[int]) -> None:
    for base in np.random.default_rng(0).integers(8_000, 9_900, (10, len(differences))):
        values = (base + differences) / 10_000
        result = paired_difference(values.tolist(), (base / 10_000).tolist(), method="bootstrap")
        assert result.p_value == pytest.approx(brute_force_sign_flips(differences), abs=1e-12)
        assert result.method == "bootstrap"


def test_sign_flips_are_exact_up_to_sixteen_pairs_and_sampled_beyond() -> None:
    differences = [1, 2, 3, -2, 5, 1, -1, 2, 4, -3, 2, 1, 1, 2, -2, 3]
    exact = paired_difference(differences, [0] * 16, method="bootstrap", seed=1).p_value
    assert exact == pytest.approx(brute_force_sign_flips(differences), abs=1e-12)
    sampled = paired_difference([*differences, 1], [0] * 17, method="bootstrap", seed=1).p_value
    expected = brute_force_sign_flips([*differences, 1])
    # Five standard errors of a share of 65,536 samples.
    assert sampled == pytest.approx(expected, abs=5 * math.sqrt(expected / 2**16))
    assert sampled != expected


def exact_bca_interval(differences: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Compute the BCa interval by Efron's formula over all n**n resamples."""
    count, normal = len(differences), NormalDist()
    means = np.array([sum(resample) / count for resample in itertools.product(differences, repeat=count)])
    below = (means < differences.mean() - 1e-12).mean() / 2 + (means <= differences.mean() + 1e-12).mean() / 2
    bias = normal.inv_cdf(below)
    without_one = (differences.sum() - differences) / (count - 1)
    influences = without_one.mean() - without_one
    acceleration = (influences**3).sum() / (6 * (influences**2).sum() ** 1.5)
    ends = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = bias + normal.inv_cdf(level)
        ends.append(float(np.quantile(means, normal.cdf(bias + shifted / (1 - acceleration * shifted)))))
    return ends[0], ends[1]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bootstrap_interval_matches_the_exact_bca_interval(confidence: float) -> None:
    # So skewed that the percentile interval is off by 0.2 at the lower end and by 1 at the upper end.
    differences = np.array([0.3, 0.55, 1.0, 1.45, 3.1, 9.7])
    result = paired_difference(differences.tolist(), [0.0] * 6, confidence=confidence, method="bootstrap")
    assert result.interval == pytest.approx(exact_bca_interval(differences, confidence), abs=0.12)


def test_percentile_interval_is_used_if_the_acceleration_underflows() -> None:
    differences = np.array([1.0, 2.0, 4.0, 5.0, 9.0])
    means = [sum(resample) / 5 for resample in itertools.product(differences, repeat=5)]
    result = paired_difference((differences * 1e-120).tolist(), [0.0] * 5, method="bootstrap")
    assert result.interval is not None
    assert np.array(result.interval) * 1e120 == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.21)


def test_bootstrap_is_deterministic_given_the_seed() -> None:
    values, base = np.random.default_rng(5).normal(size=(2, 8)).tolist()
    first, same_seed, other = (paired_difference(values, base, method="bootstrap", seed=seed) for seed in (1, 1, 2))
    assert first == same_seed
    assert first.interval != other.interval
    assert first.p_value == other.p_value


@pytest.mark.parametrize("method", METHODS)
def test_one_pair_gives_no_interval_and_no_p_value(method: Literal["t", "bootstrap"]) -> None:
    assert paired_difference([0.5], [0.25], method=method) == (1, 0.25, None, None, None, "one pair")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("values", "base", "mean", "p_value"),
    [
        ([0.91, 0.92], [0.9, 0.91], 0.01, 1 / 2),
        ([0.7, 0.8, 0.9], [0.8, 0.9, 1.0], -0.1, 1 / 4),
        ([0.91, 0.92, 0.93, 0.94, 0.95], [0.9, 0.91, 0.92, 0.93, 0.94], 0.01, 1 / 16),
        ([0.1 + 0.2, 0.3, 0.5], [0.3, 0.3, 0.5], 0.0, 1),
        ([0, 0], [0, 0], 0.0, 1),
    ],
)
def test_equal_differences_give_the_sign_flip_p_value_and_no_interval(
    method: Literal["t", "bootstrap"], values: list[float], base: list[float], mean: float, p_value: float
) -> None:
    result = paired_difference(values, base, method=method)
    assert result.mean == pytest.approx(mean)
    assert result[2:] == (0.0, None, p_value, "sign flips")


# Multiple comparisons


def test_holm_by_hand() -> None:
    # Three tests: 0.01 · 3, then 0.03 · 2, then 0.04 · 1, raised to the previous one because adjusted values ascend.
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([None, 0.5, None]) == [None, 0.5, None]
    assert holm([]) == []


@pytest.mark.parametrize(
    "p_values",
    [
        [0.2],
        [0.01, None, 0.012, 0.5, 0.04, 0.0003],
        [0.02, 0.02, 0.9, None, None, 0.02, 0.0, 1.0],
        np.random.default_rng(2).beta(0.4, 2, 20).tolist(),
    ],
)
def test_holm_matches_statsmodels(p_values: list[float | None]) -> None:
    adjusted = holm(p_values)
    assert [value is None for value in adjusted] == [value is None for value in p_values]
    expected = multipletests([value for value in p_values if value is not None], method="holm")[1]
    assert [value for value in adjusted if value is not None] == pytest.approx(list(expected), rel=1e-12)


STUDIES, VARIANTS = 500, 4


@pytest.mark.parametrize("seeds", [3, 5])
def test_holm_controls_the_family_wise_error_rate_of_an_ablation(seeds: int) -> None:
    generator = np.random.default_rng(1979)
    rejected = uncorrected = 0
    for _ in range(STUDIES):
        # A seed has one effect shared by all variants, plus independent noise for each.
        shared = generator.normal(0.9, 0.005, seeds)
        accuracies = shared + generator.normal(0, 0.002, (VARIANTS + 1, seeds))
        base = accuracies[0].tolist()
        p_values = [paired_difference(row.tolist(), base).p_value for row in accuracies[1:]]
        uncorrected += sum(value is not None and value <= 0.05 for value in p_values)
        rejected += any(value is not None and value <= 0.05 for value in holm(p_values))
    # A study rejects if its smallest p-value is at most 0.05 / VARIANTS. Variants share their base, so this rate has no
    # closed form, but it is between the rate of one variant and the sum over all variants.
    low, high = binom.ppf(0.0005, STUDIES, 0.05 / VARIANTS), binom.ppf(0.9995, STUDIES, 0.05)
    assert low <= rejected <= high
    # The mean over a study's variants varies no more than one variant, whatever their correlation.
    assert binom.ppf(0.0005, STUDIES, 0.05) <= uncorrected / VARIANTS <= binom.ppf(0.9995, STUDIES, 0.05)


@pytest.mark.parametrize(
    ("values", "base", "options", "field"),
    [
        ([], [], {}, "values"),
        ([1, 2], [1], {}, "base"),
        ([1, math.nan], [1, 2], {}, "values"),
        ([1, 2], [math.inf, 2], {}, "base"),
        ([1, 1e200], [1, 2], {}, "values"),
        (["0.9", "0.8"], [1, 2], {}, "values"),
        ([1, None], [1, 2], {}, "values"),
        ([[1, 2], [3]], [1, 2], {}, "values"),
        (0.9, [1], {}, "values"),
        ([True, False], [1, 2], {}, "values"),
        ([1], [2], {"confidence": 95}, "confidence"),
        ([1], [2], {"confidence": math.nan}, "confidence"),
        ([1, 2], [2, 1], {"method": "wilcoxon"}, "method"),
        ([1, 2], [2, 1], {"method": "bootstrap", "seed": -1}, "seed"),
        ([1, 2], [2, 1], {"method": "bootstrap", "seed": 0.5}, "seed"),
    ],
)
def test_errors_name_the_invalid_argument(values: Any, base: Any, options: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        paired_difference(values, base, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_errors_name_the_invalid_p_value(value: float) -> None:
    with pytest.raises(InputError) as caught:
        holm([None, 0.5, value])
    assert caught.value.field == "p_values[2]"


def test_holm_counts_pending_tests() -> None:
    p_values = [0.01, None, 0.04]
    # By hand: the smallest times 5, the next times 4, as if the three pending tests had a p-value of 1.
    assert holm(p_values, planned=5) == pytest.approx([0.05, None, 0.16])
    assert holm(p_values, planned=5)[::2] == holm([0.01, 0.04, 1.0, 1.0, 1.0])[:2]
    assert holm(p_values, planned=1) == holm(p_values)
