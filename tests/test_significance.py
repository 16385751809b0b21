"""Tests of differences against scipy, statsmodels, brute force and printed examples, and against what they promise."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, ttest_1samp, ttest_ind_from_stats, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

from budgetnet.errors import InputError
from budgetnet.significance import against_published, compare_predictions, holm, mcnemar, paired_difference
from budgetnet.stats import difference_interval

METHODS: tuple[Literal["t", "bootstrap"], ...] = ("t", "bootstrap")


# Pairs


def test_three_differences_by_hand() -> None:
    # Differences 1, 2, 3: t = 2 / (1 / √3). With 2 degrees of freedom P(|T| > t) = 1 - t / √(2 + t²), and the printed
    # 95 % point is 4.303.
    result = paired_difference([11, 22, 33], [10, 20, 30])
    t = 2 * math.sqrt(3)
    assert result[:3] == (3, 2.0, 1.0)
    assert result.interval == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), rel=1e-3)
    assert result.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert result.method == "paired t"


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_the_paired_t_test_is_scipys(count: int, confidence: float) -> None:
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


# Their means tie now and then, with other signs, and as accuracies they miss each other by rounding.
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
def test_the_bootstraps_p_value_counts_every_pattern_of_signs(differences: list[int]) -> None:
    for base in np.random.default_rng(0).integers(8_000, 9_900, (10, len(differences))):
        values = (base + differences) / 10_000
        result = paired_difference(values.tolist(), (base / 10_000).tolist(), method="bootstrap")
        assert result.p_value == pytest.approx(brute_force_sign_flips(differences), abs=1e-12)
        assert result.method == "bootstrap"


def test_sixteen_pairs_are_still_counted_and_seventeen_are_drawn() -> None:
    differences = [1, 2, 3, -2, 5, 1, -1, 2, 4, -3, 2, 1, 1, 2, -2, 3]
    exact = paired_difference(differences, [0] * 16, method="bootstrap", seed=1).p_value
    assert exact == pytest.approx(brute_force_sign_flips(differences), abs=1e-12)
    drawn = paired_difference([*differences, 1], [0] * 17, method="bootstrap", seed=1).p_value
    expected = brute_force_sign_flips([*differences, 1])
    # Five standard errors of a share of 65,536 draws.
    assert drawn == pytest.approx(expected, abs=5 * math.sqrt(expected / 2**16))
    assert drawn != expected


def efrons_interval(differences: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """BCa by its formula, with every one of the n**n resamples instead of drawn ones."""
    count, normal = len(differences), NormalDist()
    means = np.array([sum(drawn) / count for drawn in itertools.product(differences, repeat=count)])
    below = (means < differences.mean() - 1e-12).mean() / 2 + (means <= differences.mean() + 1e-12).mean() / 2
    bias = normal.inv_cdf(below)
    without_one = (differences.sum() - differences) / (count - 1)
    pulls = without_one.mean() - without_one
    acceleration = (pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5)
    ends = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = bias + normal.inv_cdf(level)
        ends.append(float(np.quantile(means, normal.cdf(bias + shifted / (1 - acceleration * shifted)))))
    return ends[0], ends[1]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bootstraps_interval_is_efrons(confidence: float) -> None:
    # So lopsided that plain percentiles are off by 0.2 at the low end and by 1 at the high end.
    differences = np.array([0.3, 0.55, 1.0, 1.45, 3.1, 9.7])
    result = paired_difference(differences.tolist(), [0.0] * 6, confidence=confidence, method="bootstrap")
    assert result.interval == pytest.approx(efrons_interval(differences, confidence), abs=0.12)


def test_percentiles_answer_where_the_acceleration_underflows() -> None:
    differences = np.array([1.0, 2.0, 4.0, 5.0, 9.0])
    means = [sum(drawn) / 5 for drawn in itertools.product(differences, repeat=5)]
    result = paired_difference((differences * 1e-120).tolist(), [0.0] * 5, method="bootstrap")
    assert result.interval is not None
    assert np.array(result.interval) * 1e120 == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.21)


def test_the_seed_decides_what_is_resampled() -> None:
    values, base = np.random.default_rng(5).normal(size=(2, 8)).tolist()
    first, again, other = (paired_difference(values, base, method="bootstrap", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.interval != other.interval
    assert first.p_value == other.p_value


@pytest.mark.parametrize("method", METHODS)
def test_one_pair_says_nothing_of_noise(method: Literal["t", "bootstrap"]) -> None:
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
def test_differences_without_spread_leave_only_their_signs(
    method: Literal["t", "bootstrap"], values: list[float], base: list[float], mean: float, p_value: float
) -> None:
    result = paired_difference(values, base, method=method)
    assert result.mean == pytest.approx(mean)
    assert result[2:] == (0.0, None, p_value, "sign flips")


# Many rows


def test_holms_correction_by_hand() -> None:
    # Of three: 0.01 · 3, then 0.03 · 2, then 0.04 · 1, which may not fall below the one before.
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
def test_holms_correction_is_statsmodels(p_values: list[float | None]) -> None:
    adjusted = holm(p_values)
    assert [value is None for value in adjusted] == [value is None for value in p_values]
    expected = multipletests([value for value in p_values if value is not None], method="holm")[1]
    assert [value for value in adjusted if value is not None] == pytest.approx(list(expected), rel=1e-12)


STUDIES, VARIANTS = 500, 4


@pytest.mark.parametrize("seeds", [3, 5])
def test_an_ablation_in_which_nothing_matters_seldom_finds_something(seeds: int) -> None:
    generator = np.random.default_rng(1979)
    found = uncorrected = 0
    for _ in range(STUDIES):
        # Every seed is better or worse for all; what it does to one network besides is noise.
        shared = generator.normal(0.9, 0.005, seeds)
        accuracies = shared + generator.normal(0, 0.002, (VARIANTS + 1, seeds))
        base = accuracies[0].tolist()
        p_values = [paired_difference(row.tolist(), base).p_value for row in accuracies[1:]]
        uncorrected += sum(value is not None and value <= 0.05 for value in p_values)
        found += any(value is not None and value <= 0.05 for value in holm(p_values))
    # Some row is found where the least p-value is at most 0.05 / VARIANTS. Rows share their base, so how often that is
    # has no closed form, but it lies between one row's share and the sum of all rows'.
    low, high = binom.ppf(0.0005, STUDIES, 0.05 / VARIANTS), binom.ppf(0.9995, STUDIES, 0.05)
    assert low <= found <= high
    # The mean over a study's rows scatters no more than one row, whatever they share.
    assert binom.ppf(0.0005, STUDIES, 0.05) <= uncorrected / VARIANTS <= binom.ppf(0.9995, STUDIES, 0.05)


# Two networks on the same images


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


# Against a published accuracy


def test_one_run_is_compared_as_two_proportions() -> None:
    # 92.41 % and 91.41 % of 10,000: pooled 0.9191, z = 0.01 / √(0.9191 · 0.0809 · 2 / 10,000) = 2.59316.
    result = against_published([0.9241], images=10_000, published=0.9141, published_images=10_000)
    assert result.p_value == pytest.approx(2 * (1 - NormalDist().cdf(2.59316)), rel=1e-4)
    assert result.p_value == pytest.approx(proportions_ztest([9_241, 9_141], [10_000, 10_000])[1], rel=1e-9)
    assert result.interval == difference_interval(9_241, 10_000, 9_141, 10_000)
    assert result.difference == pytest.approx(0.01)
    assert result[:4] == (1, 0.9241, None, 0.9141)
    assert result[-2:] == ("score test of two independent proportions", None)


RUNS = [[0.9, 0.93], [0.912, 0.9165, 0.9151], [0.9141, 0.9152, 0.9139, 0.9171, 0.918]]


@pytest.mark.parametrize("runs", RUNS)
def test_a_published_number_without_noise_leaves_the_t_test_of_one_sample(runs: list[float]) -> None:
    result = against_published(runs, images=10_000, published=0.9141, published_images=10**15)
    expected = ttest_1samp(runs, 0.9141)
    low, high = expected.confidence_interval(0.95)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert result.interval == pytest.approx((low - 0.9141, high - 0.9141), rel=1e-6)
    assert result.degrees_of_freedom == pytest.approx(len(runs) - 1)
    assert result.standard_deviation == pytest.approx(np.std(runs, ddof=1))
    assert result.test == "t test of the runs' mean, with the published number's binomial noise"


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("published_images", [50, 10_000])
def test_the_noise_of_both_meets_in_welchs_test(runs: list[float], published_images: int) -> None:
    result = against_published(runs, images=10_000, published=0.91, published_images=published_images)
    # A variance known as well as a thousand million draws would tell it.
    draws = 10**9
    deviation = math.sqrt(0.91 * 0.09 / published_images * draws)
    expected = ttest_ind_from_stats(
        np.mean(runs), np.std(runs, ddof=1), len(runs), 0.91, deviation, draws, equal_var=False
    )
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    # The interval at a confidence of 1 - p just touches 0.
    touching = against_published(
        runs, images=10_000, published=0.91, published_images=published_images, confidence=1 - result.p_value
    )
    assert min(map(abs, touching.interval)) == pytest.approx(0, abs=1e-12)
    assert sum(touching.interval) / 2 == pytest.approx(np.mean(runs) - 0.91)


def test_runs_without_spread_leave_the_published_numbers_noise() -> None:
    result = against_published([0.1 + 0.2, 0.3, 0.3], images=1_000, published=0.25, published_images=400)
    error = math.sqrt(0.25 * 0.75 / 400)
    assert result.p_value == pytest.approx(2 * NormalDist().cdf(-0.05 / error))
    assert result.interval == pytest.approx((0.05 - 1.959964 * error, 0.05 + 1.959964 * error), rel=1e-6)
    assert result.standard_deviation == 0
    assert result[-2:] == ("normal test of the runs' mean, with the published number's binomial noise", None)


@pytest.mark.parametrize(
    ("runs", "published"), [([0.9, 0.9], 1.0), ([1.0, 1.0, 1.0], 1.0), ([0.0], 0.0), ([0.0, 0.0], 1.0), ([1.0], 0.3)]
)
def test_where_neither_noise_can_be_seen_proportions_are_compared(runs: list[float], published: float) -> None:
    result = against_published(runs, images=200, published=published, published_images=100)
    right, published_right = round(runs[0] * 200), round(published * 100)
    assert result.interval == difference_interval(right, 200, published_right, 100)
    same = right / 200 == published
    expected = 1 if same else proportions_ztest([right, published_right], [200, 100])[1]
    assert result.p_value == pytest.approx(expected, rel=1e-9)
    assert result.test == "score test of two independent proportions"


@pytest.mark.parametrize("published", [0.0, 1.0])
def test_a_published_zero_or_one_leaves_the_spread_of_the_runs(published: float) -> None:
    result = against_published([0.5, 0.6, 0.4], images=10, published=published, published_images=10)
    assert result.p_value == pytest.approx(ttest_1samp([0.5, 0.6, 0.4], published).pvalue, rel=1e-9)
    assert result.degrees_of_freedom == 2


@pytest.mark.parametrize(
    ("seed_noise", "published_seed_noise", "rate"), [(0.002, 0.0, 0.05), (0.002, 0.002, 0.1), (0.005, 0.005, 0.197)]
)
def test_runs_no_different_from_the_published_one_are_rejected_as_often_as_documented(
    seed_noise: float, published_seed_noise: float, rate: float
) -> None:
    draws, generator = 1500, np.random.default_rng(1947)
    rejected = 0
    for _ in range(draws):
        published = generator.binomial(10_000, generator.normal(0.91, published_seed_noise)) / 10_000
        runs = generator.normal(0.91, seed_noise, 3).tolist()
        result = against_published(runs, images=10_000, published=published, published_images=10_000)
        rejected += result.p_value <= 0.05
    assert binom.ppf(0.0005, draws, rate) <= rejected <= binom.ppf(0.9995, draws, rate)


# What is refused


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
def test_bad_pairs_are_named(values: Any, base: Any, options: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        paired_difference(values, base, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_bad_p_values_are_named(value: float) -> None:
    with pytest.raises(InputError) as caught:
        holm([None, 0.5, value])
    assert caught.value.field == "p_values[2]"


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
def test_bad_comparisons_with_a_published_number_are_named(field: str, value: Any) -> None:
    good: dict[str, Any] = {"values": [0.9], "images": 100, "published": 0.9, "published_images": 100}
    with pytest.raises(InputError) as caught:
        against_published(**{**good, field: value})
    assert caught.value.field == field
