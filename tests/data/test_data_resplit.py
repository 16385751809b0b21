"""Splits that are resampled in each epoch, against counts and an exhaustive search for crops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from budgetnet.data.augment.crops import PaddingMode
from budgetnet.data.on_device import OnDeviceImages, to_device
from budgetnet.data.resplit import ResplitImages
from budgetnet.runs.augmentation import Augmentation

SIDE, NUM_TRAIN, NUM_VALIDATION = 5, 30, 10


def part(first: int, count: int) -> OnDeviceImages:
    """Return distinct random images, labelled by their indices."""
    generator = np.random.default_rng(first)
    images = generator.integers(1, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
    return to_device(images, np.arange(first, first + count), device="cpu", mean=[0.5], std=[0.25])


def make_split(
    *, resplit_each_epoch: bool, augmented: bool, seed: int = 0, padding_mode: PaddingMode = "zeros"
) -> ResplitImages:
    settings = Augmentation(crop_padding=1, flip=True, padding_mode=padding_mode)
    parts = part(0, NUM_TRAIN), part(NUM_TRAIN, NUM_VALIDATION)
    return ResplitImages(*parts, settings, resplit_each_epoch=resplit_each_epoch, augmented=augmented, seed=seed)


def pairs(images: OnDeviceImages) -> list[tuple[int, bytes]]:
    return [(int(label), image.numpy().tobytes()) for label, image in zip(images.labels, images.images, strict=True)]


ALL_IMAGES = dict(pairs(part(0, NUM_TRAIN)) + pairs(part(NUM_TRAIN, NUM_VALIDATION)))


def test_split_is_resampled_in_every_epoch() -> None:
    split = make_split(resplit_each_epoch=True, augmented=False)
    held_out: Counter[int] = Counter()
    seen = []
    for epoch in range(1, 41):
        split.begin(epoch)
        train, validation = pairs(split.train), pairs(split.validation)
        assert (len(train), len(validation)) == (NUM_TRAIN, NUM_VALIDATION)
        assert dict(train + validation) == ALL_IMAGES, "every image once, with its own label"
        held_out.update(label for label, _ in validation)
        seen.append(validation)
    assert len({tuple(each) for each in seen}) == 40
    # Each image is held out in a quarter of 40 epochs: 10, plus at most four standard deviations of 2.7.
    assert len(held_out) == NUM_TRAIN + NUM_VALIDATION
    assert max(held_out.values()) <= 21


def test_an_epoch_does_not_depend_on_the_epochs_before_it() -> None:
    one, other = (
        make_split(resplit_each_epoch=True, augmented=True),
        make_split(resplit_each_epoch=True, augmented=True),
    )
    for epoch in (1, 2, 3):
        one.begin(epoch)
    other.begin(3)
    assert pairs(one.train) == pairs(other.train)
    assert pairs(one.validation) == pairs(other.validation)
    another = make_split(resplit_each_epoch=True, augmented=True, seed=1)
    another.begin(3)
    assert pairs(another.train) != pairs(one.train)


def test_images_are_overwritten_in_place() -> None:
    split = make_split(resplit_each_epoch=True, augmented=True)
    addresses = [images.images.data_ptr() for images in (split.train, split.validation)]
    before = pairs(split.train)
    split.begin(2)
    assert [images.images.data_ptr() for images in (split.train, split.validation)] == addresses
    assert pairs(split.train) != before


@pytest.mark.parametrize("resplit", [False, True])
@pytest.mark.parametrize(("padding_mode", "numpy_mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_only_validation_images_are_cropped_and_flipped(
    resplit: bool, padding_mode: PaddingMode, numpy_mode: Any
) -> None:
    split = make_split(resplit_each_epoch=resplit, augmented=True, padding_mode=padding_mode)
    variants: Counter[tuple[int, int, bool]] = Counter()
    for epoch in range(1, 21):
        split.begin(epoch)
        assert all(ALL_IMAGES[label] == image for label, image in pairs(split.train))
        for label, image in zip(split.validation.labels, split.validation.images, strict=True):
            original = np.frombuffer(ALL_IMAGES[int(label)], dtype=np.uint8).reshape(SIDE, SIDE)
            padded = np.pad(original, 1, mode=numpy_mode)
            found = [
                (top, left, flipped)
                for top in range(3)
                for left in range(3)
                for flipped in (False, True)
                if np.array_equal(
                    padded[top : top + SIDE, left : left + SIDE][:, :: -1 if flipped else 1], image[0].numpy()
                )
            ]
            assert len(found) == 1
            variants.update(found)
        if not resplit:
            assert set(split.validation.labels.tolist()) == set(range(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION))
    assert len(variants) == 18, "every crop, flipped and not"


def test_source_images_are_not_modified() -> None:
    train, validation = part(0, NUM_TRAIN), part(NUM_TRAIN, NUM_VALIDATION)
    before = train.images.clone(), validation.images.clone()
    split = ResplitImages(
        train, validation, Augmentation(crop_padding=1), resplit_each_epoch=True, augmented=True, seed=0
    )
    split.begin(2)
    assert torch.equal(train.images, before[0])
    assert torch.equal(validation.images, before[1])
