"""Train/validation split: stratified, reproducible and nested."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from budgetnet.common.errors import DataError
from budgetnet.data import split

Labels = npt.NDArray[np.int64]


def labels_of(*counts: int) -> Labels:
    """Return shuffled labels with these numbers of images per class."""
    return np.random.default_rng(5).permutation(np.repeat(np.arange(len(counts)), counts))


def test_split_is_stratified() -> None:
    labels = labels_of(100, 200, 700)
    parts = split(labels, validation_fraction=0.1, seed=3)
    assert np.bincount(labels[parts.validation]).tolist() == [10, 20, 70]
    assert np.bincount(labels[parts.train]).tolist() == [90, 180, 630]


def test_subsets_are_stratified() -> None:
    labels = labels_of(100, 200, 700)
    parts = split(labels, validation_fraction=0.1, seed=3, train_size=90, validation_size=20)
    assert np.bincount(labels[parts.train]).tolist() == [9, 18, 63]
    assert np.bincount(labels[parts.validation]).tolist() == [2, 4, 14]


def test_smallest_subset_contains_every_class() -> None:
    labels = labels_of(4, 996)
    parts = split(labels, validation_fraction=0.5, seed=0, train_size=2, validation_size=2)
    assert sorted(labels[parts.train]) == [0, 1]
    assert sorted(labels[parts.validation]) == [0, 1]


def test_split_depends_on_the_seed_only() -> None:
    labels = labels_of(50, 50)
    first, again, other = (split(labels, validation_fraction=0.2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train, again.train)
    np.testing.assert_array_equal(first.validation, again.validation)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    assert first.validation.tolist() != other.validation.tolist()


def test_extra_images_of_a_subset_depend_on_the_seed() -> None:
    labels = labels_of(*[100] * 10)
    seen = [set(labels[split(labels, validation_fraction=0.5, seed=seed, train_size=15).train]) for seed in range(3)]
    extra = [
        tuple(np.bincount(labels[split(labels, validation_fraction=0.5, seed=seed, train_size=15).train]))
        for seed in range(3)
    ]
    assert all(classes == set(range(10)) for classes in seen)
    assert len(set(extra)) == 3


def test_fingerprint_depends_on_the_sizes() -> None:
    labels = labels_of(50, 50)
    sizes = ((40, 10), (39, 10), (40, 9))
    seen = {
        split(labels, validation_fraction=0.5, seed=0, train_size=train, validation_size=validation).fingerprint
        for train, validation in sizes
    }
    assert len(seen) == 3


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_parts_are_disjoint_complete_and_nested(
    counts: list[int], fraction: float, seed: int, data: st.DataObject
) -> None:
    labels = labels_of(*counts)
    try:
        whole = split(labels, validation_fraction=fraction, seed=seed)
    except DataError:
        assume(False)
    assert sorted([*whole.train, *whole.validation]) == list(range(len(labels)))
    assert len(whole.validation) == math.ceil(len(labels) * Fraction(repr(fraction)))
    for label, count in enumerate(counts):
        num_validation = int((labels[whole.validation] == label).sum())
        assert abs(num_validation - count * len(whole.validation) / len(labels)) < 1

    present = len(set(labels[whole.validation]))
    train_size = data.draw(st.integers(len(counts), len(whole.train)))
    smaller = data.draw(st.integers(len(counts), train_size))
    validation_size = data.draw(st.integers(present, len(whole.validation)))

    def sized(train: int | None, validation: int | None) -> Any:
        return split(labels, validation_fraction=fraction, seed=seed, train_size=train, validation_size=validation)

    both, train_only, validation_only = (
        sized(train_size, validation_size),
        sized(smaller, None),
        sized(None, validation_size),
    )
    assert not set(both.train) & set(both.validation)
    assert (len(both.train), len(both.validation)) == (train_size, validation_size)
    assert np.all(np.diff(both.train) > 0)
    assert np.all(np.diff(both.validation) > 0)
    assert both.train.dtype == both.validation.dtype == np.int64
    assert set(labels[both.train]) == set(range(len(counts)))
    np.testing.assert_array_equal(train_only.validation, whole.validation)
    np.testing.assert_array_equal(validation_only.train, whole.train)
    np.testing.assert_array_equal(validation_only.validation, both.validation)
    assert set(train_only.train) <= set(both.train) <= set(whole.train)


@pytest.mark.parametrize(
    ("labels", "options", "field", "rule"),
    [
        (labels_of(50, 50), {"validation_fraction": 0.0}, "validation_fraction", "between 0 and 1"),
        (labels_of(50, 50), {"validation_fraction": 1.0}, "validation_fraction", "between 0 and 1"),
        (labels_of(50, 50), {"validation_fraction": float("nan")}, "validation_fraction", "between 0 and 1"),
        (labels_of(50, 50), {"validation_fraction": 0.001}, "validation_fraction", "at least 2, one per class"),
        (labels_of(50, 50), {"validation_fraction": 0.999}, "validation_fraction", "at least 2, one per class"),
        (labels_of(2, 60), {"validation_fraction": 0.9}, "validation_fraction", "without training images"),
        (labels_of(50, 50), {"seed": -1}, "seed", "whole number"),
        (labels_of(50, 50), {"seed": 2**32}, "seed", "whole number"),
        (labels_of(50, 50), {"seed": 1.5}, "seed", "whole number"),
        (labels_of(50, 1), {}, "class", "at least 2 images"),
        (np.zeros(0, np.int64), {}, "labels", "whole numbers"),
        (np.zeros((4, 1), np.int64), {}, "labels", "whole numbers"),
        (np.zeros(4), {}, "labels", "whole numbers"),
        (labels_of(50, 50), {"train_size": 81}, "train_size", "2 .* to 80"),
        (labels_of(50, 50), {"train_size": 1}, "train_size", "2 .* to 80"),
        (labels_of(50, 50), {"train_size": 3.0}, "train_size", "2 .* to 80"),
        (labels_of(50, 50), {"train_size": True}, "train_size", "2 .* to 80"),
        (labels_of(50, 50), {"validation_size": 21}, "validation_size", "2 .* to 20"),
        (labels_of(50, 50), {"validation_size": 0}, "validation_size", "2 .* to 20"),
    ],
)
def test_invalid_splits_name_the_field(labels: Labels, options: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(DataError, match=rule) as caught:
        split(labels, **{"validation_fraction": 0.2, "seed": 0, **options})
    assert caught.value.field == field


def test_size_of_the_whole_part_selects_all_of_it() -> None:
    labels = labels_of(50, 50)
    whole = split(labels, validation_fraction=0.2, seed=0)
    sized = split(labels, validation_fraction=0.2, seed=0, train_size=80, validation_size=20)
    assert sized.fingerprint == whole.fingerprint
    one_less = split(labels, validation_fraction=0.2, seed=0, train_size=79)
    assert len(one_less.train) == 79


def test_fraction_is_not_rounded_up_by_floating_point_errors() -> None:
    assert 100 * 0.07 > 7
    assert len(split(labels_of(50, 50), validation_fraction=0.07, seed=0).validation) == 7
