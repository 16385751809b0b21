"""Splits that are made anew for each epoch, against counts and searches over every image."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from budgetnet.data.augment.crops import PaddingMode
from budgetnet.data.on_device import ResidentImages, resident
from budgetnet.data.resplit import MovingSplit
from budgetnet.runs.augmentation import Augmentation

SIDE, LEARNED, HELD_OUT = 5, 30, 10


def part(first: int, count: int) -> ResidentImages:
    """Images of which no two are alike, each labelled by its number."""
    chance = np.random.default_rng(first)
    images = chance.integers(1, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
    return resident(images, np.arange(first, first + count), device="cpu", mean=[0.5], std=[0.25])


def moving(*, redrawn: bool, augmented: bool, seed: int = 0, padding_mode: PaddingMode = "zeros") -> MovingSplit:
    settings = Augmentation(crop_padding=1, flip=True, padding_mode=padding_mode)
    parts = part(0, LEARNED), part(LEARNED, HELD_OUT)
    return MovingSplit(*parts, settings, redrawn=redrawn, augmented=augmented, seed=seed)


def pairs(images: ResidentImages) -> list[tuple[int, bytes]]:
    return [(int(label), image.numpy().tobytes()) for label, image in zip(images.labels, images.images, strict=True)]


POOL = dict(pairs(part(0, LEARNED)) + pairs(part(LEARNED, HELD_OUT)))


def test_each_epoch_parts_all_images_anew() -> None:
    split = moving(redrawn=True, augmented=False)
    held_out: Counter[int] = Counter()
    seen = []
    for epoch in range(1, 41):
        split.begin(epoch)
        learned, judged = pairs(split.train), pairs(split.validation)
        assert (len(learned), len(judged)) == (LEARNED, HELD_OUT)
        assert dict(learned + judged) == POOL, "every image once, with its own label"
        held_out.update(label for label, _ in judged)
        seen.append(judged)
    assert len({tuple(each) for each in seen}) == 40
    # Held out in a quarter of the epochs each: 10 of 40, give or take four standard deviations of 2.7.
    assert len(held_out) == LEARNED + HELD_OUT
    assert max(held_out.values()) <= 21


def test_an_epoch_can_be_gone_to_without_those_before() -> None:
    one, other = moving(redrawn=True, augmented=True), moving(redrawn=True, augmented=True)
    for epoch in (1, 2, 3):
        one.begin(epoch)
    other.begin(3)
    assert pairs(one.train) == pairs(other.train)
    assert pairs(one.validation) == pairs(other.validation)
    another = moving(redrawn=True, augmented=True, seed=1)
    another.begin(3)
    assert pairs(another.train) != pairs(one.train)


def test_who_holds_the_parts_sees_them_change() -> None:
    split = moving(redrawn=True, augmented=True)
    places = [images.images.data_ptr() for images in (split.train, split.validation)]
    before = pairs(split.train)
    split.begin(2)
    assert [images.images.data_ptr() for images in (split.train, split.validation)] == places
    assert pairs(split.train) != before


@pytest.mark.parametrize("redrawn", [False, True])
@pytest.mark.parametrize(("padding_mode", "numpys"), [("zeros", "constant"), ("reflect", "reflect")])
def test_validation_images_are_shifted_and_mirrored_but_training_images_are_left_alone(
    redrawn: bool, padding_mode: PaddingMode, numpys: Any
) -> None:
    split = moving(redrawn=redrawn, augmented=True, padding_mode=padding_mode)
    ways: Counter[tuple[int, int, bool]] = Counter()
    for epoch in range(1, 21):
        split.begin(epoch)
        assert all(POOL[label] == image for label, image in pairs(split.train))
        for label, image in zip(split.validation.labels, split.validation.images, strict=True):
            original = np.frombuffer(POOL[int(label)], dtype=np.uint8).reshape(SIDE, SIDE)
            padded = np.pad(original, 1, mode=numpys)
            found = [
                (top, left, mirrored)
                for top in range(3)
                for left in range(3)
                for mirrored in (False, True)
                if np.array_equal(
                    padded[top : top + SIDE, left : left + SIDE][:, :: -1 if mirrored else 1], image[0].numpy()
                )
            ]
            assert len(found) == 1
            ways.update(found)
        if not redrawn:
            assert set(split.validation.labels.tolist()) == set(range(LEARNED, LEARNED + HELD_OUT))
    assert len(ways) == 18, "every shift, each mirrored and not"


def test_the_images_given_are_left_as_they_were() -> None:
    train, validation = part(0, LEARNED), part(LEARNED, HELD_OUT)
    before = train.images.clone(), validation.images.clone()
    split = MovingSplit(train, validation, Augmentation(crop_padding=1), redrawn=True, augmented=True, seed=0)
    split.begin(2)
    assert torch.equal(train.images, before[0])
    assert torch.equal(validation.images, before[1])
