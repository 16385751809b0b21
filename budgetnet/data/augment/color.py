"""Colour jitter: random brightness, contrast, saturation and hue, sampled for each image.

The arithmetic, including rounding to levels after each change, is that of torchvision's ``adjust_brightness``,
``adjust_contrast``, ``adjust_saturation`` and ``adjust_hue`` on uint8 tensors, in this order; torchvision's
``ColorJitter`` shuffles the order for each image. Images of one channel have no saturation and no hue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgetnet.data.augment.operations import LEVELS, grey_of
from budgetnet.runs.augmentation import ColorJitter


def sample_color_jitter(
    count: int, *, jitter: ColorJitter, device: torch.device | str, generator: torch.Generator
) -> Tensor:
    """Sample factors, uniformly from 1 - strength, at least 0, to 1 + strength, and shifts of the hue.

    Args:
        count: number of images.
        jitter: strengths.
        device: device of the samples.
        generator: random generator on that device.

    Returns:
        float32 (n, 4): factors of brightness, contrast and saturation, and the shift of the hue in turns.
    """
    strengths = torch.tensor([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    centres = torch.tensor([1.0, 1.0, 1.0, 0.0])
    lowest, highest = centres - strengths, centres + strengths
    lowest[:3].clamp_(min=0)
    uniform = torch.rand((count, 4), device=device, generator=generator)
    return lowest.to(device) + uniform * (highest - lowest).to(device)


def jitter_color(batch: Tensor, *, jitter: ColorJitter, factors: Tensor) -> Tensor:
    """Change the colours of each image.

    Args:
        batch: uint8 (n, channels, height, width); 1 or 3 channels.
        jitter: strengths; what has strength 0 is left out.
        factors: samples for n images, see `sample_color_jitter`.

    Returns:
        New tensor of the shape and type of ``batch``.
    """
    pixels = batch.float()
    brightness, contrast, saturation, hue = factors[:, :, None, None, None].unbind(1)
    if jitter.brightness:
        pixels = _to_levels(pixels * brightness)
    if jitter.contrast:
        mean = grey_of(pixels).mean(dim=(1, 2, 3), keepdim=True)
        pixels = _to_levels(pixels * contrast + mean * (1 - contrast))
    if jitter.saturation and pixels.shape[1] == 3:
        pixels = _to_levels(pixels * saturation + grey_of(pixels) * (1 - saturation))
    if jitter.hue and pixels.shape[1] == 3:
        pixels = _with_hue(pixels, hue)
    return pixels.to(torch.uint8)


def _to_levels(pixels: Tensor) -> Tensor:
    return pixels.clamp_(0, LEVELS - 1).floor_()


def _with_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of pixels (n, 3, height, width) by turns (n, 1, 1, 1), in the colour model HSV.

    With a hue of h sixths of a turn, a channel is ``highest - chroma * min(k, 4 - k)``, where the minimum is limited to
    0 to 1, and k is (5 + h) mod 6 for red, (3 + h) mod 6 for green and (1 + h) mod 6 for blue.
    """
    red, green, blue = (pixels[:, channel, None] for channel in range(3))
    highest = pixels.amax(dim=1, keepdim=True)
    chroma = highest - pixels.amin(dim=1, keepdim=True)
    divisor = torch.where(chroma == 0, 1, chroma)
    sixths = torch.where(
        highest == red,
        (green - blue) / divisor,
        torch.where(highest == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    offsets = torch.arange(5, 0, -2, device=pixels.device).view(1, 3, 1, 1)
    place = (sixths + 6 * shift + offsets).remainder(6)
    shifted = highest - chroma * torch.minimum(place, 4 - place).clamp_(0, 1)
    # From 0 to 255 to levels as torchvision converts 0 to 1: all levels have an equal share.
    return _to_levels(shifted * ((LEVELS - 1e-3) / (LEVELS - 1)))
