"""Numbers as text."""

from __future__ import annotations

import pytest

from budgetnet.common.formatting import percent, share_of_limit, short_count, short_p_value
from budgetnet.statistics.intervals import format_with_interval, wilson_interval


@pytest.mark.parametrize("images", [7, 29, 99, 100, 288, 999, 1_000, 10_000])
def test_an_accuracy_has_no_more_decimals_than_its_images_support(images: int) -> None:
    texts = [percent(correct / images, images=images) for correct in range(images + 1)]
    decimals = len(texts[0].partition(".")[2])
    assert {len(text.partition(".")[2]) for text in texts} == {decimals}
    # One more image changes the accuracy by at least one in the last decimal, and by less than a thousand of them.
    assert 1 <= 100 / images * 10**decimals < 1_000
    assert len(set(texts)) == images + 1, "different numbers of images are told apart"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (999, "999"),
        (1_000, "1.0k"),
        (999_949, "999.9k"),
        (999_950, "1.0M"),
        (999_962, "1.0M"),
        (1_000_000, "1.0M"),
        (793_446_912, "793.4M"),
        (999_949_999, "999.9M"),
        (999_960_000, "1.0G"),
    ],
)
def test_counts_are_rounded_to_the_larger_unit_where_they_reach_it(number: int, text: str) -> None:
    assert short_count(number) == text


def test_no_count_has_more_than_three_digits_before_the_point() -> None:
    for power in (10**3, 10**6, 10**9):
        for number in range(power - power // 5_000, power + power // 5_000, max(1, power // 10**6)):
            assert len(short_count(number).partition(".")[0]) <= 3


def test_shares_of_a_limit_have_at_most_three_digits_in_per_cent() -> None:
    assert [share_of_limit(share) for share in (0.984, 9.9994, 10, 4662)] == ["98.4 %", "999.9 %", "10 x", "4,662 x"]
    for millionths in range(9_999_000, 10_001_000):
        assert share_of_limit(millionths / 10**6) in ("999.9 %", "10 x")


def test_small_p_values_are_not_zero() -> None:
    texts = [short_p_value(value) for value in (1.0, 0.0414, 0.001, 0.00099, 0.0)]
    assert texts == ["1.000", "0.041", "0.001", "< 0.001", "< 0.001"]


def test_an_interval_has_the_decimals_of_its_accuracy() -> None:
    assert format_with_interval(26 / 29, wilson_interval(26, 29), images=29) == "90 [74, 96]"
    assert format_with_interval(280 / 288, wilson_interval(280, 288), images=288) == "97.2 [94.6, 98.6]"
    assert format_with_interval(0.9141, wilson_interval(9_141, 10_000), images=10_000) == "91.41 [90.84, 91.94]"
