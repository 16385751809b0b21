"""Copies of images: kept on one side of the split, and named where test images are training images."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_recipe

from budgetnet.common.errors import DataError
from budgetnet.data import DataSet
from budgetnet.data.dataset import make_dataset
from budgetnet.data.split import split
from budgetnet.data.training_data import TrainingData

RANDOM = np.random.default_rng(0)


def dataset(train: Any, test: Any) -> DataSet:
    labels = [np.arange(len(part)) % 2 for part in (train, test)]
    return make_dataset(
        name="made",
        train_images=train,
        train_labels=labels[0],
        test_images=test,
        test_labels=labels[1],
        provenance="made for this test",
    )


def pictures(count: int) -> Any:
    return RANDOM.integers(0, 256, (count, 4, 4), dtype=np.uint8)


def test_copies_stay_on_one_side_of_the_split() -> None:
    copied = np.repeat(pictures(60), 10, axis=0)
    order = RANDOM.permutation(len(copied))
    found = dataset(copied[order], pictures(20))
    recipe = tiny_recipe(validation_fraction=0.2)
    data = TrainingData.prepare(found, recipe, device=torch.device("cpu"))
    sides = [{image.tobytes() for image in part.images.numpy()} for part in (data.train, data.validation)]
    assert [len(side) for side in sides] == [48, 12]
    assert not sides[0] & sides[1]
    assert len(data.train) + len(data.validation) == 600
    # Each size still selects a subset of its part.
    smaller = TrainingData.prepare(found, recipe, device=torch.device("cpu"), train_size=100, validation_size=50)
    assert (len(smaller.train), len(smaller.validation)) == (100, 50)
    assert {image.tobytes() for image in smaller.validation.images.numpy()} <= sides[1]


def test_with_too_few_groups_copies_are_split_like_other_images() -> None:
    labels = np.repeat(np.arange(10), 12)
    groups = np.array([index if index % 12 > 3 else index - index % 12 for index in range(120)])
    parts = split(labels, validation_fraction=0.1, seed=0, groups=groups)
    assert (len(parts.train), len(parts.validation)) == (108, 12)
    with pytest.raises(DataError, match="train_size"):
        split(labels, validation_fraction=0.2, seed=0, groups=groups, train_size=1)


def test_validation_images_that_are_training_images_are_named() -> None:
    # One picture of each class, so that each has copies on both sides.
    found = dataset(np.tile(pictures(2), (30, 1, 1)), pictures(20))
    data = TrainingData.prepare(found, tiny_recipe(validation_fraction=0.2), device=torch.device("cpu"))
    assert "12 of 12 validation images are also training images (leaking)" in data.record.provenance
    apart = dataset(np.repeat(pictures(60), 10, axis=0), pictures(20))
    data = TrainingData.prepare(apart, tiny_recipe(validation_fraction=0.2), device=torch.device("cpu"))
    assert "validation images" not in data.record.provenance


def test_without_copies_the_split_is_what_it_was() -> None:
    images = pictures(200)
    images[1] = images[0]
    found = dataset(images, pictures(20))
    assert found.groups_of_copies is None, "one copy in 200 is less than 1 %"
    data = TrainingData.prepare(found, tiny_recipe(), device=torch.device("cpu"))
    parts = split(found.train_labels, validation_fraction=0.2, seed=0)
    assert data.record.split_fingerprint == parts.fingerprint


@pytest.mark.parametrize(("count", "remark"), [(0, ""), (3, "3 of 20 test images are also training images")])
def test_test_images_that_are_training_images_are_named(count: int, remark: str) -> None:
    train, test = pictures(50), pictures(20)
    test[:count] = train[:count]
    found = dataset(train, test)
    assert found.provenance.startswith("made for this test")
    assert (remark in found.provenance) if remark else (found.provenance == "made for this test")


def test_a_data_set_of_one_colour_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset(np.full((50, 4, 4), 7, dtype=np.uint8), pictures(20))
    assert "data made: all training pixels are 7" in caplog.text
