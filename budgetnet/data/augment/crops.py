"""Random crops and mirror images of a batch, each image on its own: what chance decides, and its being applied."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PaddingMode = Literal["zeros", "reflect"]


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
        crop_padding: pixels added on each side before the crop.
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


def crop(batch: Tensor, crops: Crops, *, crop_padding: int, padding_mode: PaddingMode = "zeros") -> Tensor:
    """Crops each image, padded on all sides, at its own offset, and mirrors those drawn for it.

    Args:
        batch: (n, channels, height, width).
        crops: for n images and this padding.
        crop_padding: pixels added on each side.
        padding_mode: what they hold: zeros, or the image reflected at its border, without repeating the border itself,
            as ``torch.nn.functional.pad`` has it; for that they must be fewer than each side has.

    Returns:
        As ``batch``, a new tensor.
    """
    count, channels, height, width = batch.shape
    rows = crops.top[:, None] + torch.arange(height, device=batch.device)
    columns = torch.arange(width, device=batch.device)
    columns = torch.where(crops.flipped[:, None], columns.flip(0), columns) + crops.left[:, None]
    if padding_mode == "zeros":
        padded, padded_width = functional.pad(batch, [crop_padding] * 4), width + 2 * crop_padding
    else:
        # Nothing is added: a place beyond the border is the place that it reflects.
        padded, padded_width = batch, width
        rows = _reflected(rows - crop_padding, height)
        columns = _reflected(columns - crop_padding, width)
    padded = padded.flatten(start_dim=2)
    # One position a pixel, shared by the channels: a single gather moves each byte once, crop and mirror together.
    pixels = rows[:, :, None] * padded_width + columns[:, None, :]
    pixels = pixels.flatten(start_dim=1)[:, None].expand(count, channels, height * width)
    return padded.gather(2, pixels).view(count, channels, height, width)


def _reflected(places: Tensor, length: int) -> Tensor:
    """Places along a side of that length, those less than a length beyond an end reflected at it."""
    last = length - 1
    return last - (last - places.abs()).abs()
