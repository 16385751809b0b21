"""A difference over several groups of pairs: against statsmodels' least squares, by hand, and at its promised level."""

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


def groups_of(pairs: list[int], *, seed: int, means: list[float] | None = None) -> Groups:
    """Accuracies around 0.9 whose differences have these means in the groups."""
    generator = np.random.default_rng(seed)
    found: Groups = []
    for place, count in enumerate(pairs):
        base = generator.normal(0.9, 0.01, count)
        values = base + generator.normal((means or [0.0] * len(pairs))[place], 0.004, count)
        found.append((values.tolist(), base.tolist()))
    return found


def test_two_groups_by_hand() -> None:
    # Differences 1, 3 and 4, 5, 9: means 2 and 6; squares around them 2 and 14, of 1 + 2 degrees.
    result = pooled_difference([([11, 13], [10, 10]), ([5, 6, 10], [1, 1, 1])])
    error = math.sqrt(16 / 3 / 2 + 16 / 3 / 3) / 2
    assert (result.pairs, result.mean, result.degrees_of_freedom) == ((2, 3), 4.0, 3)
    assert result.standard_deviation == pytest.approx(math.sqrt(16 / 3))
    # The printed 95 % point of Student's distribution with 3 degrees of freedom is 3.182.
    assert result.interval == pytest.approx((4 - 3.182 * error, 4 + 3.182 * error), rel=1e-3)
    assert result.p_value == pytest.approx(2 * t.sf(4 / error, 3))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("pairs", [[5, 5, 5], [2, 7, 4], [1, 3], [1, 1, 1, 2], [6]])
def test_it_is_the_contrast_of_least_squares_on_the_groups(pairs: list[int], confidence: float) -> None:
    groups = groups_of(pairs, seed=len(pairs), means=[0.01 * place for place in range(len(pairs))])
    result = pooled_difference(groups, confidence=confidence)
    observed = np.concatenate([np.array(values) - np.array(base) for values, base in groups])
    dummies = np.repeat(np.eye(len(pairs)), pairs, axis=0)
    fitted = sm.OLS(observed, dummies).fit().t_test(np.full((1, len(pairs)), 1 / len(pairs)))
    assert result.mean == pytest.approx(float(fitted.effect[0]))
    assert result.degrees_of_freedom == fitted.df_denom
    assert result.interval == pytest.approx(tuple(fitted.conf_int(1 - confidence)[0]))
    assert result.p_value == pytest.approx(float(fitted.pvalue))


def test_one_group_is_the_paired_t_test() -> None:
    ((values, base),) = groups = groups_of([6], seed=3)
    result, expected = pooled_difference(groups), ttest_rel(values, base)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_where_nothing_matters_it_finds_something_as_often_as_it_says() -> None:
    # Groups with effects that cancel, and unequal numbers of pairs: the mean of the groups' means is still 0.
    draws, pairs, means = 3_000, [3, 5, 2], [0.02, -0.015, -0.005]
    p_values = [pooled_difference(groups_of(pairs, seed=seed, means=means)).p_value for seed in range(draws)]
    for level in (0.05, 0.2):
        found = sum(p_value is not None and p_value <= level for p_value in p_values)
        assert binom.ppf(0.0005, draws, level) <= found <= binom.ppf(0.9995, draws, level)


@pytest.mark.parametrize(
    ("groups", "mean", "deviation", "freedom", "p_value"),
    [
        ([([0.5], [0.25]), ([0.75], [0.25])], 0.375, None, 0, None),
        ([([0.91, 0.92], [0.9, 0.91]), ([0.5], [0.5])], 0.005, 0.0, 1, None),
        ([([0.1 + 0.2, 0.4], [0.3, 0.4]), ([0.5, 0.5], [0.5, 0.5])], 0.0, 0.0, 2, 1.0),
        ([([0.91, 0.92], [0.9, 0.91]), ([0.8, 0.7], [0.81, 0.71])], 0.0, 0.0, 2, None),
    ],
)
def test_without_spread_there_is_no_interval(
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
def test_bad_groups_are_named(groups: Any, options: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        pooled_difference(groups, **options)
    assert caught.value.field == field
