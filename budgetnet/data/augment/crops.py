"""Random crops and horizontal flips of a batch, sampled for each image."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PaddingMode = Literal["zeros", "reflect"]


class Crops(NamedTuple):
    """Sampled crop position and flip of each image of a batch."""

    top: Tensor
    """int64 (n,): first row of the crop in the padded image, 0 to twice the padding."""

    left: Tensor
    """int64 (n,): first column of the crop in the padded image, 0 to twice the padding."""

    flipped: Tensor
    """bool (n,): whether the crop is flipped horizontally."""


def sample_crops(
    count: int, *, crop_padding: int, flip: bool, device: torch.device | str, generator: torch.Generator
) -> Crops:
    """Sample crop positions, uniformly, and flips, with probability 1/2.

    Applied by `crop`, they are equivalent to torchvision's ``RandomCrop(size, padding=crop_padding)`` and
    ``RandomHorizontalFlip()`` of each image.

    Args:
        count: number of images.
        crop_padding: pixels padded on each side before the crop.
        flip: whether to sample flips; otherwise no image is flipped.
        device: device of the samples.
        generator: random generator on that device.
    """
    choices = 2 * crop_padding + 1
    offsets = torch.randint(choices, (2, count), device=device, generator=generator)
    coins = torch.randint(2, (count,), device=device, generator=generator).bool() if flip else None
    return Crops(
        top=offsets[0],
        left=offsets[1],
        flipped=coins if coins is not None else torch.zeros(count, dtype=torch.bool, device=device),
    )


def crop(batch: Tensor, crops: Crops, *, crop_padding: int, padding_mode: PaddingMode = "zeros") -> Tensor:
    """Pad, crop and flip each image of a batch.

    Args:
        batch: (n, channels, height, width).
        crops: samples for n images and this padding.
        crop_padding: pixels padded on each side.
        padding_mode: zeros, or the image reflected at its border as in `torch.nn.functional.pad`, which requires a
            padding smaller than height and width.

    Returns:
        New tensor of the shape and type of ``batch``.
    """
    count, channels, height, width = batch.shape
    rows = crops.top[:, None] + torch.arange(height, device=batch.device)
    columns = torch.arange(width, device=batch.device)
    columns = torch.where(crops.flipped[:, None], columns.flip(0), columns) + crops.left[:, None]
    if padding_mode == "zeros":
        padded, padded_width = functional.pad(batch, [crop_padding] * 4), width + 2 * crop_padding
    else:
        # No padding is needed: positions beyond the border are mapped to the pixels that they reflect.
        padded, padded_width = batch, width
        rows = _reflected(rows - crop_padding, height)
        columns = _reflected(columns - crop_padding, width)
    padded = padded.flatten(start_dim=2)
    # One index per pixel, shared by the channels, so that a single gather crops and flips.
    pixels = rows[:, :, None] * padded_width + columns[:, None, :]
    pixels = pixels.flatten(start_dim=1)[:, None].expand(count, channels, height * width)
    return padded.gather(2, pixels).view(count, channels, height, width)


def _reflected(positions: Tensor, length: int) -> Tensor:
    """Reflect positions beyond the ends of an axis of this length."""
    last = length - 1
    return last - (last - positions.abs()).abs()
