"""Pooled differences against statsmodels' least squares, a hand calculation and the simulated error rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import binom, t, ttest_rel

from budgetnet.common.errors import InputError
from budgetnet.statistics import pooled_difference

Groups = list[tuple[list[float], list[float]]]


def sample_groups(pairs: list[int], *, seed: int, means: list[float] | None = None) -> Groups:
    """Sample accuracies around 0.9 with the given mean difference in each group."""
    generator = np.random.default_rng(seed)
    groups: Groups = []
    for index, count in enumerate(pairs):
        base = generator.normal(0.9, 0.01, count)
        values = base + generator.normal((means or [0.0] * len(pairs))[index], 0.004, count)
        groups.append((values.tolist(), base.tolist()))
    return groups


def test_two_groups_by_hand() -> None:
    # Differences 1, 3 and 4, 5, 9: means 2 and 6, sums of squares 2 and 14, 1 + 2 degrees of freedom.
    result = pooled_difference([([11, 13], [10, 10]), ([5, 6, 10], [1, 1, 1])])
    error = math.sqrt(16 / 3 / 2 + 16 / 3 / 3) / 2
    assert (result.pairs, result.mean, result.degrees_of_freedom) == ((2, 3), 4.0, 3)
    assert result.standard_deviation == pytest.approx(math.sqrt(16 / 3))
    # The 95 % critical value of Student's t distribution with 3 degrees of freedom is 3.182.
    assert result.interval == pytest.approx((4 - 3.182 * error, 4 + 3.182 * error), rel=1e-3)
    assert result.p_value == pytest.approx(2 * t.sf(4 / error, 3))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("pairs", [[5, 5, 5], [2, 7, 4], [1, 3], [1, 1, 1, 2], [6]])
def test_pooled_difference_matches_a_least_squares_contrast(pairs: list[int], confidence: float) -> None:
    groups = sample_groups(pairs, seed=len(pairs), means=[0.01 * index for index in range(len(pairs))])
    result = pooled_difference(groups, confidence=confidence)
    observed = np.concatenate([np.array(values) - np.array(base) for values, base in groups])
    dummies = np.repeat(np.eye(len(pairs)), pairs, axis=0)
    fitted = sm.OLS(observed, dummies).fit().t_test(np.full((1, len(pairs)), 1 / len(pairs)))
    assert result.mean == pytest.approx(float(fitted.effect[0]))
    assert result.degrees_of_freedom == fitted.df_denom
    assert result.interval == pytest.approx(tuple(fitted.conf_int(1 - confidence)[0]))
    assert result.p_value == pytest.approx(float(fitted.pvalue))


def test_one_group_gives_the_paired_t_test() -> None:
    ((values, base),) = groups = sample_groups([6], seed=3)
    result, expected = pooled_difference(groups), ttest_rel(values, base)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_false_positive_rate_equals_the_significance_level() -> None:
    # The groups' effects cancel, so the unweighted mean of their means is 0 although group sizes differ.
    simulations, pairs, means = 3_000, [3, 5, 2], [0.02, -0.015, -0.005]
    p_values = [pooled_difference(sample_groups(pairs, seed=seed, means=means)).p_value for seed in range(simulations)]
    for level in (0.05, 0.2):
        rejected = sum(p_value is not None and p_value <= level for p_value in p_values)
        assert binom.ppf(0.0005, simulations, level) <= rejected <= binom.ppf(0.9995, simulations, level)


@pytest.mark.parametrize(
    ("groups", "mean", "deviation", "freedom", "p_value"),
    [
        ([([0.5], [0.25]), ([0.75], [0.25])], 0.375, None, 0, None),
        ([([0.91, 0.92], [0.9, 0.91]), ([0.5], [0.5])], 0.005, 0.0, 1, None),
        ([([0.1 + 0.2, 0.4], [0.3, 0.4]), ([0.5, 0.5], [0.5, 0.5])], 0.0, 0.0, 2, 1.0),
        ([([0.91, 0.92], [0.9, 0.91]), ([0.8, 0.7], [0.81, 0.71])], 0.0, 0.0, 2, None),
    ],
)
def test_no_interval_without_variance(
    groups: Groups, mean: float, deviation: float | None, freedom: int, p_value: float | None
) -> None:
    result = pooled_difference(groups)
    assert result.mean == pytest.approx(mean)
    assert result[2:] == (deviation, freedom, None, p_value)


@pytest.mark.parametrize(
    ("groups", "options", "field"),
    [
        ([], {}, "groups"),
        ([([1, 2], [1, 3]), ([], [])], {}, "groups[1].values"),
        ([([1, 2], [1])], {}, "groups[0].base"),
        ([([1, 2], [1, math.inf])], {}, "groups[0].base"),
        ([([1, 2], [2, 1])], {"confidence": 95}, "confidence"),
    ],
)
def test_errors_name_the_invalid_argument(groups: Any, options: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        pooled_difference(groups, **options)
    assert caught.value.field == field
