"""Numbers as text."""

from __future__ import annotations

import pytest

from budgetnet.common.formatting import percent, short_p_value
from budgetnet.statistics.intervals import format_with_interval, wilson_interval


@pytest.mark.parametrize("images", [7, 29, 99, 100, 288, 999, 1_000, 10_000])
def test_an_accuracy_has_no_more_decimals_than_its_images_support(images: int) -> None:
    texts = [percent(correct / images, images=images) for correct in range(images + 1)]
    decimals = len(texts[0].partition(".")[2])
    assert {len(text.partition(".")[2]) for text in texts} == {decimals}
    # One more image changes the accuracy by at least one in the last decimal, and by less than a thousand of them.
    assert 1 <= 100 / images * 10**decimals < 1_000
    assert len(set(texts)) == images + 1, "different numbers of images are told apart"


def test_small_p_values_are_not_zero() -> None:
    texts = [short_p_value(value) for value in (1.0, 0.0414, 0.001, 0.00099, 0.0)]
    assert texts == ["1.000", "0.041", "0.001", "< 0.001", "< 0.001"]


def test_an_interval_has_the_decimals_of_its_accuracy() -> None:
    assert format_with_interval(26 / 29, wilson_interval(26, 29), images=29) == "90 [74, 96]"
    assert format_with_interval(280 / 288, wilson_interval(280, 288), images=288) == "97.2 [94.6, 98.6]"
    assert format_with_interval(0.9141, wilson_interval(9_141, 10_000), images=10_000) == "91.41 [90.84, 91.94]"
