from __future__ import annotations

import copy
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import TINY
from torch import Tensor
from torch.nn.functional import cross_entropy

from budgetnet.bench.baseline import PlainImages, PlainLoop, notebook_transform
from budgetnet.model.spec import ModelSpec

COLOUR = ModelSpec.resnet(channels=[8], input_shape=(3, 8, 8))
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "batch_size": 8,
    "device": "cpu",
    "seed": 0,
}


def images(count: int = 20, *, channels: int = 1, size: tuple[int, int] = (8, 8)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, channels, *size), dtype=np.uint8)


def labels(count: int = 20) -> npt.NDArray[np.int64]:
    return np.arange(count) % 10


@contextmanager
def plain_loop(spec: ModelSpec = TINY, *, channels: int = 1, **changes: Any) -> Iterator[PlainLoop]:
    with closing(PlainLoop(spec, images(channels=channels), labels(), **SETTINGS | changes)) as loop:
        yield loop


def weights(loop: PlainLoop) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in loop.network.parameters()]


@pytest.mark.parametrize(("spec", "channels"), [(TINY, 1), (COLOUR, 3)])
def test_steps_change_the_weights_as_those_written_by_hand(
    spec: ModelSpec, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plain_loop(spec, channels=channels, workers=0) as loop:
        network = copy.deepcopy(loop.network)
        velocities = [torch.zeros_like(parameter) for parameter in network.parameters()]
        next_batch = loop._next_batch
        batches: list[tuple[Tensor, Tensor]] = []

        def recorded() -> tuple[Tensor, Tensor]:
            batches.append(next_batch())
            return batches[-1]

        monkeypatch.setattr(loop, "_next_batch", recorded)
        for _ in range(2):  # the second has momentum
            loop.step()
            network.zero_grad()
            loss = cross_entropy(network(batches[-1][0]), batches[-1][1])
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for parameter, velocity in zip(network.parameters(), velocities, strict=True):
                    assert parameter.grad is not None
                    velocity.mul_(0.9).add_(parameter.grad.add(parameter, alpha=5e-4))
                    parameter.sub_(velocity, alpha=0.1)
            assert loop.loss == loss.item()
            for ours, by_hand in zip(loop.network.parameters(), network.parameters(), strict=True):
                assert torch.equal(ours, by_hand)


def test_every_image_is_seen_once_an_epoch_and_epochs_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with plain_loop(workers=0) as loop:
        next_batch = loop._next_batch
        seen: list[list[int]] = []

        def recorded() -> tuple[Tensor, Tensor]:
            batch = next_batch()
            seen.append(batch[1].tolist())
            return batch

        monkeypatch.setattr(loop, "_next_batch", recorded)
        for _ in range(6):
            loop.step()
        assert [len(batch) for batch in seen] == [8, 8, 4] * 2
        assert loop.images_seen == 40
        first, second = [*chain(*seen[:3])], [*chain(*seen[3:])]
        assert sorted(first) == sorted(second) == sorted(labels().tolist())
        assert first != second


def crops(image: npt.NDArray[np.uint8], padding: int) -> dict[bytes, bool]:
    """Every crop there can be, and whether it is mirrored."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    found = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + height, left : left + width]
            found[crop[:, :, ::-1].tobytes()] = True
            found[crop.tobytes()] = False
    return found


@pytest.mark.parametrize(("channels", "size", "padding"), [(1, (8, 8), 1), (3, (6, 9), 2)])
def test_augmented_images_are_mirrored_or_plain_crops(channels: int, size: tuple[int, int], padding: int) -> None:
    given = images(1, channels=channels, size=size)
    transform = notebook_transform(given, crop_padding=padding)
    dataset = PlainImages(given, np.array([7]), transform)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in constants(given))
    possible = crops(given[0], padding)
    assert len(possible) == 2 * (2 * padding + 1) ** 2
    seen = set()
    for _ in range(1_000):
        augmented, label = dataset[0]
        assert label == 7
        content = ((augmented * std + mean) * 255).round().to(torch.uint8).numpy().tobytes()
        assert content in possible
        seen.add(content)
    assert seen == set(possible)


def constants(given: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As in the notebook; of grey images, which it had none of, their own."""
    if given.shape[1] == 3:
        return (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return (float((given / 255).mean()),), (float((given / 255).std()),)


@pytest.mark.parametrize(("side", "padding"), [(32, 4), (8, 1)])
def test_images_of_another_size_are_padded_in_proportion(
    side: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def recorded(given: npt.NDArray[np.uint8], *, crop_padding: int) -> Any:
        told.append(crop_padding)
        return notebook_transform(given, crop_padding=crop_padding)

    monkeypatch.setattr("budgetnet.bench.baseline.notebook_transform", recorded)
    given = images(size=(side, side))
    PlainLoop(TINY, given, labels(), **SETTINGS)
    PlainLoop(TINY, given, labels(), **SETTINGS, crop_padding=3)
    assert told == [padding, 3]


def test_two_workers_prepare_the_batches_and_are_gone_after_the_end() -> None:
    assert not multiprocessing.active_children()
    # With another thread, as a program that measures may have: Python remarks on copying such a process.
    with ThreadPoolExecutor(1) as thread, plain_loop() as loop:
        thread.submit(int)
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")  # as an error, this one would be lost
            loop.step()
        assert not remarks
        workers = [worker.pid for worker in multiprocessing.active_children()]
        assert len(workers) == 2
        for _ in range(4):  # into the next epoch, which has workers of its own
            loop.step()
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()
    for pid in workers:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    loop.close()


def test_the_seed_fixes_all_and_leaves_the_generator_of_others_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found, orders = [], []
    for seed in (0, 0, 1):
        with plain_loop(seed=seed) as loop:
            loop.step()
            found.append(weights(loop)[0])
            orders.append(loop._next_batch()[1].tolist())
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.gpu
def test_it_trains_on_a_cuda_device() -> None:
    with plain_loop(device="cuda") as loop:
        before = weights(loop)[0]
        loop.step()
        assert loop.loss > 0
        assert not torch.equal(weights(loop)[0], before)
