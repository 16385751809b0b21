"""Images that live on the device, augmented and normalised there a batch at a time.

Small images fit whole into a device's memory, as bytes. What is left for each step is arithmetic over a batch: no
workers, no copies from the host, no loop over images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentImages:
    """Images, their labels, and what to normalise them by, all on one device."""

    images: Tensor
    """uint8 (n, channels, height, width)."""

    labels: Tensor
    """int64 (n,)."""

    mean: Tensor
    """float32 (channels,), of pixels in [0, 1]."""

    std: Tensor
    """float32 (channels,), of pixels in [0, 1]."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """What chance decided for a batch, apart from its being applied."""

    top: Tensor
    """int64 (n,): first row of the crop in the padded image, 0 to twice the padding."""

    left: Tensor
    """int64 (n,): first column of the crop in the padded image, 0 to twice the padding."""

    flipped: Tensor
    """bool (n,): whether the crop is mirrored, left to right."""


def resident(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    indices: npt.NDArray[Any] | None = None,
    *,
    device: torch.device | str,
    mean: Sequence[float],
    std: Sequence[float],
) -> ResidentImages:
    """Copies images to a device.

    Args:
        images: uint8 (n, channels, height, width).
        labels: class numbers (n,).
        indices: which of them to copy, in this order; None for all.
        device: where to.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
    """
    chosen_images = images.copy() if indices is None else images[indices]
    chosen_labels = labels.astype(np.int64) if indices is None else labels[indices].astype(np.int64)
    return ResidentImages(
        images=torch.from_numpy(chosen_images).to(device),
        labels=torch.from_numpy(chosen_labels).to(device),
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
    )


def draw(
    count: int, *, crop_padding: int, flip: bool, device: torch.device | str, generator: torch.Generator | None
) -> Draws:
    """Draws where each image is cropped, uniform over all places, and whether it is mirrored, half the time."""
    choices = 2 * crop_padding + 1
    offsets = torch.randint(choices, (2, count), device=device, generator=generator)
    coins = torch.randint(2, (count,), device=device, generator=generator).bool() if flip else None
    return Draws(
        top=offsets[0],
        left=offsets[1],
        flipped=coins if coins is not None else torch.zeros(count, dtype=torch.bool, device=device),
    )


def apply(batch: Tensor, draws: Draws, *, crop_padding: int) -> Tensor:
    """Crops each image, padded by zeros on all sides, at its own offset, and mirrors those drawn for it.

    Args:
        batch: (n, channels, height, width).
        draws: for n images and this padding.
        crop_padding: pixels added on each side.

    Returns:
        As ``batch``, a new tensor.
    """
    count, channels, height, width = batch.shape
    padded = functional.pad(batch, [crop_padding] * 4).flatten(start_dim=2)
    rows = draws.top[:, None] + torch.arange(height, device=batch.device)
    columns = torch.arange(width, device=batch.device)
    columns = torch.where(draws.flipped[:, None], columns.flip(0), columns) + draws.left[:, None]
    # One position a pixel, shared by the channels: a single gather moves each byte once, crop and mirror together.
    pixels = rows[:, :, None] * (width + 2 * crop_padding) + columns[:, None, :]
    pixels = pixels.flatten(start_dim=1)[:, None].expand(count, channels, height * width)
    return padded.gather(2, pixels).view(count, channels, height, width)


def augment(batch: Tensor, *, crop_padding: int, flip: bool, generator: torch.Generator | None) -> Tensor:
    """Random crops and mirror images, for each image on its own.

    As torchvision's ``RandomCrop(size, padding=crop_padding)``, then ``RandomHorizontalFlip()``, image by image.

    Args:
        batch: uint8 (n, channels, height, width).
        crop_padding: pixels of zeros added on each side before the crop; 0 for no crop.
        flip: whether to mirror, left to right, with probability one half.
        generator: source of chance, on the batch's device; None for the global one.

    Returns:
        uint8 (n, channels, height, width).
    """
    if not crop_padding and not flip:
        return batch
    draws = draw(len(batch), crop_padding=crop_padding, flip=flip, device=batch.device, generator=generator)
    return apply(batch, draws, crop_padding=crop_padding)


def normalise(
    batch: Tensor, mean: Tensor, std: Tensor, *, dtype: torch.dtype = torch.float32, channels_last: bool = True
) -> Tensor:
    """Bytes to what a network takes: (value / 255 - mean) / std, computed in float32.

    Args:
        batch: uint8 (n, channels, height, width).
        mean: (channels,), of pixels in [0, 1].
        std: (channels,), of pixels in [0, 1].
        dtype: of the result.
        channels_last: whether the result lies in memory with the channels of a pixel side by side, as convolutions on
            many devices like it; its shape is the same either way.

    Returns:
        (n, channels, height, width).
    """
    scaled = batch.to(torch.float32, copy=True).div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])
    # Laid out last: the arithmetic is several times faster while a channel's pixels are side by side.
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return scaled.to(dtype).contiguous(memory_format=layout)


def batches(
    data: ResidentImages,
    *,
    batch_size: int,
    shuffle: bool = False,
    drop_last: bool = False,
    crop_padding: int = 0,
    flip: bool = False,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Goes once through the images, a batch at a time.

    Args:
        data: the images.
        batch_size: images in a batch; the last may have fewer.
        shuffle: whether to go through them in a random order instead of their own.
        drop_last: whether to leave out a last batch that has fewer.
        crop_padding: see ``augment``.
        flip: see ``augment``.
        generator: source of chance for order and augmentation, on the images' device; None for the global one.
        dtype: of the inputs.
        channels_last: see ``normalise``.

    Yields:
        Normalised inputs (n, channels, height, width) and labels int64 (n,).
    """
    count = len(data)
    device = data.images.device
    order = torch.randperm(count, device=device, generator=generator) if shuffle else None
    stop = count - count % batch_size if drop_last else count
    for start in range(0, stop, batch_size):
        chosen: Tensor | slice = slice(start, start + batch_size)
        if order is not None:
            chosen = order[chosen]
        batch = augment(data.images[chosen], crop_padding=crop_padding, flip=flip, generator=generator)
        inputs = normalise(batch, data.mean, data.std, dtype=dtype, channels_last=channels_last)
        yield inputs, data.labels[chosen]
