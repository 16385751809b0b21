from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms import functional

from budgetnet.data.on_device import normalise, resident


def images_of(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def test_normalise_is_what_torchvision_does() -> None:
    batch = images_of(5, 3, 7, 6)
    before = batch.clone()
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    expected = functional.normalize(functional.convert_image_dtype(batch, torch.float32), mean, std)
    result = normalise(batch, torch.tensor(mean), torch.tensor(std))
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_resident_images_are_copies_in_the_order_asked_for() -> None:
    images = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    chosen = resident(
        images, np.array([0, 1, 2, 3]), np.array([3, 1]), device="cpu", mean=(0.1, 0.2, 0.3), std=(1, 2, 3)
    )
    assert len(chosen) == 2
    assert chosen.images.dtype == torch.uint8
    assert chosen.images.tolist() == [images[3].tolist(), images[1].tolist()]
    assert chosen.labels.tolist() == [3, 1]
    assert chosen.labels.dtype == torch.int64
    assert chosen.std.tolist() == [1.0, 2.0, 3.0]
    whole = resident(images, np.array([0, 1, 2, 3]), device="cpu", mean=(0,), std=(1,))
    images[:] = 0
    assert chosen.images.max() > 0
    assert whole.images.max() > 0
