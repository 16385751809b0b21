"""What a training run is fed: every image once an epoch, and the parts of its augmentation one behind the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from device_support import NoWaiting

from budgetnet.data.augment.crops import Crops, crop
from budgetnet.data.augment.cutout import cut_out
from budgetnet.data.augment.mixing import mix
from budgetnet.data.augment.policies import PolicyDraws, apply_policy
from budgetnet.data.batches import Batch, Feed
from budgetnet.data.on_device import ResidentImages, normalise, resident
from budgetnet.runs.augmentation import Augmentation, Mixing, Policy

PLAIN = Augmentation(crop_padding=0, flip=False)
EVERYTHING = Augmentation(
    crop_padding=2,
    alternating_flip=True,
    policy=Policy(),
    cutout=3,
    mixing=Mixing(kind="cutmix"),
    padding_mode="reflect",
)


def images(count: int, *, size: int = 8, channels: int = 3) -> ResidentImages:
    """Images of noise, each with its number as its label."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    values = (0.3,) * channels
    return resident(pixels, np.arange(count), device="cpu", mean=values, std=values)


def epoch(feed: Feed, number: int) -> list[Batch]:
    feed.begin(number)
    return [feed.batch(torch.tensor(step), size=size) for step, size in enumerate(feed.sizes)]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (9, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (4, 4, [4]), (5, 2, [2, 2])],
)
def test_an_epoch_has_every_image_once_but_for_one_that_would_be_alone(
    count: int, batch_size: int, sizes: list[int]
) -> None:
    data = images(count)
    feed = Feed(data, PLAIN, batch_size=batch_size, seed=0)
    assert feed.sizes == sizes
    assert feed.images == sum(sizes)
    orders = []
    for number in (1, 2):
        batches = epoch(feed, number)
        assert [len(batch.labels) for batch in batches] == sizes
        labels = torch.cat([batch.labels for batch in batches])
        assert len(set(labels.tolist())) == sum(sizes)
        expected = normalise(data.images[labels], data.mean, data.std)
        assert torch.equal(torch.cat([batch.inputs for batch in batches]), expected)
        orders.append(labels.tolist())
    assert count <= 4 or orders[0] != orders[1]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    values = (pair for batches in zip(one, other, strict=True) for pair in zip(*batches, strict=True))
    return all(mine is not None and theirs is not None and torch.equal(mine, theirs) for mine, theirs in values)


def test_an_epoch_is_the_same_whether_or_not_those_before_it_were_drawn() -> None:
    data = images(50)
    walked = Feed(data, EVERYTHING, batch_size=8, seed=3)
    epochs = [epoch(walked, number) for number in (1, 2, 3)]
    for number in (3, 1, 2):
        assert equal(epoch(Feed(data, EVERYTHING, batch_size=8, seed=3), number), epochs[number - 1])
    assert not equal(epochs[0], epochs[1])
    assert not equal(epoch(Feed(data, EVERYTHING, batch_size=8, seed=4), 1), epochs[0])


def test_a_new_epoch_takes_the_place_of_the_old_one() -> None:
    """A recorded step reads where the draws lay when it was recorded."""
    feed = Feed(images(20), EVERYTHING, batch_size=4, seed=0)
    before = {name: tensor.data_ptr() for name, tensor in feed._draws.items()}
    assert len(before) == 9
    feed.begin(2)
    assert {name: tensor.data_ptr() for name, tensor in feed._draws.items()} == before


@pytest.mark.parametrize("channels", [1, 3])
def test_the_parts_follow_one_another(channels: int) -> None:
    """Each part is tested where it lives; here their order, by applying what was drawn with one's own hands."""
    data = images(20, channels=channels)
    feed = Feed(data, EVERYTHING, batch_size=20, seed=1)
    (batch,) = epoch(feed, 1)
    drawn = feed._draws
    expected = data.images[drawn["order"]]
    crops = Crops(drawn["top"], drawn["left"], drawn["flipped"])
    expected = crop(expected, crops, crop_padding=2, padding_mode="reflect")
    expected = apply_policy(expected, PolicyDraws(operations=drawn["operations"], magnitudes=drawn["magnitudes"]))
    rows, columns = drawn["centres"][:, 0], drawn["centres"][:, 1]
    inputs = cut_out(normalise(expected, data.mean, data.std), rows=rows, columns=columns, length=3)
    inputs = mix(inputs, kind="cutmix", share=drawn["shares"][0], box=drawn["boxes"][0])
    assert torch.equal(batch.inputs, inputs)
    assert torch.equal(batch.labels, drawn["order"])
    assert batch.mixed_in is not None
    assert batch.mixed_in.tolist() == [batch.labels.tolist()[position - 1] for position in range(20)]
    assert batch.share == drawn["shares"][0]


def resampled(line: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """The last axis in another length: new pixels are means of old ones under a triangle two steps wide."""
    count = line.shape[-1]
    scale = count / side
    centres = (np.arange(side)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(count)[None, :] + 0.5 - centres) / max(scale, 1))
    return np.asarray(line @ (weights / weights.sum(axis=1, keepdims=True)).T)


@pytest.mark.parametrize("augmentation", [PLAIN, EVERYTHING])
def test_images_are_augmented_at_full_size_and_then_resized(augmentation: Augmentation) -> None:
    data, sides = images(20, size=16), {1: 8, 2: 12, 3: 16}
    whole = Feed(data, augmentation, batch_size=8, seed=1)
    grown = Feed(data, augmentation, batch_size=8, seed=1, side=sides.__getitem__)
    for number, side in sides.items():
        for full, small in zip(epoch(whole, number), epoch(grown, number), strict=True):
            assert grown.side == side
            assert small.inputs.shape[2:] == (side, side)
            assert small.inputs.is_contiguous(memory_format=torch.channels_last)
            rows = resampled(full.inputs.double().numpy(), side)
            expected = resampled(rows.swapaxes(2, 3), side).swapaxes(2, 3)
            np.testing.assert_allclose(small.inputs.numpy(), expected, atol=1e-4)
            assert equal([small._replace(inputs=full.inputs)], [full]) or augmentation is PLAIN
            assert torch.equal(small.labels, full.labels)
    assert whole.side is None


def test_no_step_of_resized_images_waits_for_the_device() -> None:
    feed = Feed(images(20, size=16), EVERYTHING, batch_size=8, seed=1, side=lambda _: 8)
    step = torch.tensor(0)
    with NoWaiting():  # type: ignore[no-untyped-call]
        feed.batch(step, size=8)


@pytest.mark.parametrize("part", [{"crop_padding": 2}, {"flip": True}, {"cutout": 3}, {"policy": Policy()}])
def test_each_part_does_something_by_itself(part: dict[str, Any]) -> None:
    data = images(64)
    (batch,) = epoch(Feed(data, Augmentation(**{"crop_padding": 0, "flip": False, **part}), batch_size=64, seed=1), 1)
    untouched = normalise(data.images[batch.labels], data.mean, data.std)
    changed = (batch.inputs != untouched).flatten(start_dim=1).any(dim=1).float().mean()
    assert 0.25 < changed <= 1
    assert batch.share is None


def sides(feed: Feed, number: int) -> torch.Tensor:
    """Whether each image, by its number, is mirrored in an epoch."""
    mirrored = torch.zeros(200, dtype=torch.bool)
    for batch in epoch(feed, number):
        plain = normalise(feed.data.images[batch.labels], feed.data.mean, feed.data.std)
        same = (batch.inputs == plain).flatten(start_dim=1).all(dim=1)
        other = (batch.inputs == plain.flip(3)).flatten(start_dim=1).all(dim=1)
        assert bool((same ^ other).all())
        mirrored[batch.labels] = other
    return mirrored


def test_alternating_images_change_sides_every_epoch() -> None:
    feed = Feed(images(200), Augmentation(crop_padding=0, alternating_flip=True), batch_size=32, seed=0)
    first, second, third = (sides(feed, number) for number in (1, 2, 3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 70 <= first.sum() <= 130


def test_a_coin_is_thrown_anew_every_epoch_without_alternation() -> None:
    feed = Feed(images(200), Augmentation(crop_padding=0), batch_size=32, seed=0)
    assert 70 <= (sides(feed, 1) ^ sides(feed, 2)).sum() <= 130
