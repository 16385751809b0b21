"""Parsing of counts and numbers, one-line errors, and pickling of errors."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples

from budgetnet.common.documents import Document, field_path, parse_count, parse_limit
from budgetnet.common.errors import DataError, InputError, RecordError, short_repr
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.experiments.reproduction.config import EnsembleConfig
from budgetnet.model import zoo
from budgetnet.model.parts import Head, Stage
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.study.config import SearchConfig
from budgetnet.study.space import SearchSpace


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("5e6", 5_000_000),
        ("5E+6", 5_000_000),
        ("5M", 5_000_000),
        ("5m", 5_000_000),
        (" 5 M ", 5_000_000),
        ("5000000", 5_000_000),
        ("5_000_000", 5_000_000),
        ("5,000,000", 5_000_000),
        ("1.5k", 1_500),
        ("2G", 2_000_000_000),
        ("2b", 2_000_000_000),
        (".5k", 500),
        ("5.", 5),
        ("+7", 7),
        ("1e-3k", 1),
        ("4.662346M", 4_662_346),
        ("1e18", 10**18),
        ("\u0665\u0660\u0660", 500),
        (5e6, 5_000_000),
        (5_000_000, 5_000_000),
        (1e15, 10**15),
        (np.int64(7), 7),
        (np.float64(5e6), 5_000_000),
        (Decimal("5e6"), 5_000_000),
    ],
)
def test_parse_count(text: object, count: int) -> None:
    parsed = parse_count(text, field="--max-params")
    assert parsed == count
    assert type(parsed) is int


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "0",
        "-5M",
        "0.5",
        "1.0005k",
        "1.00000000000000000000000000000000000001",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e9999",
        "1e-999",
        "1" * 5_000,
        "9" * 200_000,
        10**5_000,
        "1,5M",
        "1,50",
        "5__0",
        "5_",
        "5,",
        "_5",
        "1 000",
        "5MM",
        "5Mi",
        "0x10",
        "²",
        "½",
        "5\n5",
        "5;rm",
        None,
        True,
        False,
        math.nan,
        math.inf,
        1.5,
        0,
        -1,
        [],
        {},
        b"5",
        1j,
    ],
    ids=lambda value: f"{type(value).__name__}-{short_repr(value)[:20]}",
)
def test_parse_count_rejects_invalid_input_in_one_line(text: object) -> None:
    with pytest.raises(InputError) as caught:
        parse_count(text, field="--max-params")
    assert caught.value.field == "--max-params"
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many"])
def test_examples_of_large_numbers_are_given_for_limits_only(text: str) -> None:
    rule = "must be a whole number of at least 1"
    with pytest.raises(InputError) as caught:
        parse_count(text, field="--workers")
    assert caught.value.rule == rule
    with pytest.raises(InputError) as caught:
        parse_limit(text, field="--max-params")
    assert caught.value.rule == f"{rule}, such as 5000000, 5e6 or 5M"
    assert parse_limit("5M", field="--max-params") == 5_000_000


@many_examples
@given(st.integers(1, 10**18))
def test_parse_count_accepts_every_notation_of_a_whole_number(number: int) -> None:
    for text in (str(number), f"{number:,}", f"{number:_}", f"{number}.0", f"{Decimal(number) / 1000}k", number):
        assert parse_count(text, field="x") == number


@many_examples
@given(st.text(st.sampled_from("0123456789.,_eE+-kKmMgGbB \n٣²"), max_size=12))
def test_parse_count_of_any_text_returns_a_positive_count_or_raises_input_error(text: str) -> None:
    try:
        assert 1 <= parse_count(text, field="x") <= 10**18
    except InputError as error:
        assert error.value == text


WHOLE = [64, np.int64(64), np.uint8(64), 64.0, np.float32(64), Decimal(64)]
NOT_WHOLE = [64.5, "64", b"64", True, np.True_, None, math.nan, math.inf, -math.inf, [64], {"a": 1}, 64 + 0j, object()]


@pytest.mark.parametrize("value", WHOLE, ids=lambda value: type(value).__name__)
def test_whole_numbers_of_any_type_are_converted_to_int(value: Any) -> None:
    stage = Stage(channels=value)
    assert stage.channels == 64
    assert type(stage.channels) is int


@pytest.mark.parametrize("value", NOT_WHOLE, ids=lambda value: type(value).__name__)
def test_other_values_are_rejected_as_integers(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        Stage(channels=value)
    assert (caught.value.field, caught.value.rule) == ("channels", "must be a whole number")


@pytest.mark.parametrize(
    "value", ["1e-1", 0.1, np.float64(0.1), Decimal("0.1")], ids=lambda value: type(value).__name__
)
def test_real_numbers_of_any_type_and_numeric_text_are_accepted(value: Any) -> None:
    assert Head(dropout=value).dropout == pytest.approx(0.1)


@pytest.mark.parametrize("value", [True, np.False_, "yes", "nan", "inf", math.nan, None, [], b"0.1"])
def test_other_values_are_rejected_as_real_numbers(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        Head(dropout=value)
    assert caught.value.field == "dropout"


def test_negative_zero_becomes_positive_zero() -> None:
    assert math.copysign(1, Head(dropout=-0.0).dropout) == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*ModelSpec.model_fields, "self", "cls", "{", "\x1b[31m", "a\nb", "x" * 500])


@many_examples
@given(st.dictionaries(fields, values, max_size=4), st.dictionaries(fields, values, max_size=2))
def test_any_mapping_is_a_valid_spec_or_raises_a_short_one_line_error(
    top: dict[str, Any], stage: dict[str, Any]
) -> None:
    mapping = {"stages": [{"channels": 4, **stage}], **top}
    try:
        ModelSpec.from_mapping(mapping)
    except InputError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 500


@pytest.mark.parametrize(
    "channels", ["{boom}", {"a": 1}, "{0}", "{error}", 10**5_000, -(10**5_000), "x" * 10_000], ids=short_repr
)
def test_huge_values_and_values_with_braces_are_shortened_in_errors(channels: Any) -> None:
    with pytest.raises(InputError) as caught:
        ModelSpec.from_mapping({"stages": [{"channels": 4}, {"channels": channels}]})
    assert caught.value.field == "stages[1].channels"
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("kind", [InputError, DataError, RecordError])
@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_errors_can_be_pickled_and_copied(kind: type[InputError], copied: Any) -> None:
    error = kind("stages[0].channels", [1, 2], "must be a whole number")
    restored = copied(error)
    assert type(restored) is kind
    assert (restored.field, restored.value, restored.rule, str(restored)) == (
        error.field,
        error.value,
        error.rule,
        str(error),
    )


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("stages", 2, "channels"), "stages[2].channels"),
        (("a",), "a"),
        ((), ""),
        ((0, "a", 1, 2), "[0].a[1][2]"),
        (("a\nb",), "'a\\nb'"),
    ],
)
def test_field_path(location: tuple[int | str, ...], path: str) -> None:
    assert field_path(location) == path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(name="my net"), "name = 'my net': must be of letters, digits and . _ + - only"),
        (lambda: Recipe(name="n" * 101), "must be at most 100 characters"),
        (lambda: SearchSpace(channels=(8,)), "channels = (8,): must have 2 entries"),
    ],
)
def test_rules_name_what_is_wrong(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)


BAD_VALUES: tuple[Any, ...] = (
    "x",
    -1,
    0,
    1.5,
    10**30,
    math.inf,
    math.nan,
    True,
    None,
    [],
    {},
    [[1], "a"],
    [1, 2, 3],
    {"a": 1},
    b"x",
)


@pytest.mark.parametrize("kind", [Recipe, ModelSpec, SearchSpace, SearchConfig, AblationConfig, EnsembleConfig])
def test_rules_of_every_field_are_in_words_of_ours(kind: type[Document]) -> None:
    """The library that validates starts its messages with a capital letter and names its own types."""
    valid = {"study": "study.yaml"} if kind is AblationConfig else {}
    valid |= zoo.get("resnet20").to_mapping() if kind is ModelSpec else {}
    rules = {}
    for name, value in itertools.product(kind.model_fields, BAD_VALUES):
        try:
            kind.from_mapping({**valid, name: value})
        except InputError as error:
            rules[error.rule] = error.field
    assert len(rules) > 5
    assert [rule for rule in rules if not rule[0].islower() or rule.count(" more)") > 1] == []
    assert [field for field in rules.values() if field.endswith((".str", ".int"))] == []


def test_a_misspelled_field_is_named_before_the_one_that_is_missing() -> None:
    with pytest.raises(InputError) as raised:
        ModelSpec.from_mapping({"stages": [{"chanels": 16}]})
    assert str(raised.value) == "stages[0].chanels = 16: unknown field; did you mean channels? (and 1 more)"
