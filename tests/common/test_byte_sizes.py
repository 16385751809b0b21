"""Sizes in bytes as people write them, and as they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from budgetnet.common.byte_sizes import exact_bytes, parse_bytes, short_bytes
from budgetnet.common.errors import InputError


@pytest.mark.parametrize(
    "text", ["524288", "524_288", "524,288", 524_288, "512K", "512k", "512 KB", "512KiB", "0.5M", "0.5 MiB", "524288 B"]
)
def test_all_ways_to_write_a_size_are_the_same(text: object) -> None:
    assert parse_bytes(text, field="size") == 2**19


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "0.1K", "K", "5X", "5KK", "1e5K5", True, None, "nan", "9" * 5000]
)
def test_what_is_no_size_gives_one_line(text: object) -> None:
    with pytest.raises(InputError) as caught:
        parse_bytes(text, field="--max-weights")
    assert str(caught.value).startswith("--max-weights = ")
    assert "must be" in str(caught.value)
    assert "\n" not in str(caught.value)


@examples(200)
@given(st.integers(1, 2**60))
def test_exact_sizes_are_read_as_written(size: int) -> None:
    assert parse_bytes(exact_bytes(size), field="") == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.000 KiB"),
        (548_864, "536.0 KiB"),
        (1_048_524, "1,023.9 KiB"),
        (1_048_575, "1.000 MiB"),
        (-1_073_741_823, "-1.000 GiB"),
        (18_653_296, "17.79 MiB"),
        (-2048, "-2.000 KiB"),
    ],
)
def test_sizes_are_shown_with_four_digits(size: int, text: str) -> None:
    assert short_bytes(size) == text
