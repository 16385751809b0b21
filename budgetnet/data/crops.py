"""Random crops and mirror images of a batch, each image on its own: what chance decides, and its being applied."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Crops(NamedTuple):
    """Where each image of a batch is cropped, and whether it is mirrored."""

    top: Tensor
    """int64 (n,): first row of the crop in the padded image, 0 to twice the padding."""

    left: Tensor
    """int64 (n,): first column of the crop in the padded image, 0 to twice the padding."""

    flipped: Tensor
    """bool (n,): whether the crop is mirrored, left to right."""


def draw_crops(
    count: int, *, crop_padding: int, flip: bool, device: torch.device | str, generator: torch.Generator
) -> Crops:
    """Draws where each image is cropped, uniform over all places, and whether it is mirrored, half the time.

    Applied, they do what torchvision's ``RandomCrop(size, padding=crop_padding)``, then ``RandomHorizontalFlip()``, do
    image by image.

    Args:
        count: number of images.
        crop_padding: pixels of zeros added on each side before the crop.
        flip: whether to mirror at all.
        device: where the draws shall lie.
        generator: source of chance, on that device.
    """
    choices = 2 * crop_padding + 1
    offsets = torch.randint(choices, (2, count), device=device, generator=generator)
    coins = torch.randint(2, (count,), device=device, generator=generator).bool() if flip else None
    return Crops(
        top=offsets[0],
        left=offsets[1],
        flipped=coins if coins is not None else torch.zeros(count, dtype=torch.bool, device=device),
    )


def crop(batch: Tensor, crops: Crops, *, crop_padding: int) -> Tensor:
    """Crops each image, padded by zeros on all sides, at its own offset, and mirrors those drawn for it.

    Args:
        batch: (n, channels, height, width).
        crops: for n images and this padding.
        crop_padding: pixels added on each side.

    Returns:
        As ``batch``, a new tensor.
    """
    count, channels, height, width = batch.shape
    padded = functional.pad(batch, [crop_padding] * 4).flatten(start_dim=2)
    rows = crops.top[:, None] + torch.arange(height, device=batch.device)
    columns = torch.arange(width, device=batch.device)
    columns = torch.where(crops.flipped[:, None], columns.flip(0), columns) + crops.left[:, None]
    # One position a pixel, shared by the channels: a single gather moves each byte once, crop and mirror together.
    pixels = rows[:, :, None] * (width + 2 * crop_padding) + columns[:, None, :]
    pixels = pixels.flatten(start_dim=1)[:, None].expand(count, channels, height * width)
    return padded.gather(2, pixels).view(count, channels, height, width)
