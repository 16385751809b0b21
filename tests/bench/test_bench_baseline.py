"""Plain training loop: its updates, augmentation, workers and seeds."""

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
def test_step_equals_sgd_with_momentum_and_weight_decay(
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
            for ours, expected in zip(loop.network.parameters(), network.parameters(), strict=True):
                assert torch.equal(ours, expected)


def test_every_epoch_visits_every_image_once_in_a_new_order(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Return every possible crop, as bytes, and whether it is flipped."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    result = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + height, left : left + width]
            result[crop[:, :, ::-1].tobytes()] = True
            result[crop.tobytes()] = False
    return result


@pytest.mark.parametrize(("channels", "size", "padding"), [(1, (8, 8), 1), (3, (6, 9), 2)])
def test_augmentation_produces_exactly_all_crops_flipped_or_not(
    channels: int, size: tuple[int, int], padding: int
) -> None:
    dataset_images = images(1, channels=channels, size=size)
    transform = notebook_transform(dataset_images, crop_padding=padding)
    dataset = PlainImages(dataset_images, np.array([7]), transform)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalisation(dataset_images))
    possible = crops(dataset_images[0], padding)
    assert len(possible) == 2 * (2 * padding + 1) ** 2
    seen = set()
    for _ in range(1_000):
        augmented, label = dataset[0]
        assert label == 7
        content = ((augmented * std + mean) * 255).round().to(torch.uint8).numpy().tobytes()
        assert content in possible
        seen.add(content)
    assert seen == set(possible)


def normalisation(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation: the notebook's for colour images, their own for grey ones."""
    if images.shape[1] == 3:
        return (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return (float((images / 255).mean()),), (float((images / 255).std()),)


@pytest.mark.parametrize(("side", "padding"), [(32, 4), (8, 1)])
def test_crop_padding_is_proportional_to_the_image_size(
    side: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paddings: list[int] = []

    def recorded(images: npt.NDArray[np.uint8], *, crop_padding: int) -> Any:
        paddings.append(crop_padding)
        return notebook_transform(images, crop_padding=crop_padding)

    monkeypatch.setattr("budgetnet.bench.baseline.notebook_transform", recorded)
    square = images(size=(side, side))
    PlainLoop(TINY, square, labels(), **SETTINGS)
    PlainLoop(TINY, square, labels(), **SETTINGS, crop_padding=3)
    assert paddings == [padding, 3]


def test_two_workers_run_and_close_stops_them() -> None:
    assert not multiprocessing.active_children()
    # With another thread, because Python warns about forking such a process.
    with ThreadPoolExecutor(1) as thread, plain_loop() as loop:
        thread.submit(int)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # an error would be lost in the loop
            loop.step()
        assert not caught
        workers = [worker.pid for worker in multiprocessing.active_children()]
        assert len(workers) == 2
        for _ in range(4):  # into the next epoch, which starts new workers
            loop.step()
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()
    for pid in workers:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    loop.close()


def test_seed_determines_the_run_and_keeps_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first_weights, orders = [], []
    for seed in (0, 0, 1):
        with plain_loop(seed=seed) as loop:
            loop.step()
            first_weights.append(weights(loop)[0])
            orders.append(loop._next_batch()[1].tolist())
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first_weights[0], first_weights[1])
    assert not torch.equal(first_weights[0], first_weights[2])
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.gpu
def test_plain_loop_trains_on_a_cuda_device() -> None:
    with plain_loop(device="cuda") as loop:
        before = weights(loop)[0]
        loop.step()
        assert loop.loss > 0
        assert not torch.equal(weights(loop)[0], before)
