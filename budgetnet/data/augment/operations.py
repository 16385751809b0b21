"""The fourteen operations that TrivialAugment and RandAugment choose from, on batches whose images differ in theirs.

No image is looked up, sorted or left out by what was drawn for it: that would need the host to wait for the device.
Instead every step is taken by every image, with parameters that change nothing in an image for which another operation
was drawn: its pixels move by the identity, its levels map to themselves, it is blended with nothing. Shapes depend on
shapes alone, so that a batch can be captured as a CUDA graph.

The arithmetic, rounding included, is that of torchvision's functions on uint8 tensors, one image at a time.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor
from torch.nn import functional


class Operation(enum.IntEnum):
    """What can be drawn for an image; the numbers are the order in which torchvision lists them."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTO_CONTRAST = 12
    EQUALIZE = 13


SIGNED = (
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
    Operation.ROTATE,
    Operation.BRIGHTNESS,
    Operation.COLOR,
    Operation.CONTRAST,
    Operation.SHARPNESS,
)
"""Operations whose magnitude has a direction: half the time it is the negative of the bin's."""

LEVELS = 256
"""Values of a byte."""


def apply_operation(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Applies to each image the operation drawn for it.

    Args:
        pixels: float32 (n, channels, height, width), whole numbers from 0 to 255; 1 or 3 channels.
        operations: int64 (n,), numbers of ``Operation``.
        magnitudes: float32 (n,), signed. Shears: pixels a pixel. Translations: pixels, cut to whole ones. Rotation:
            degrees, counter-clockwise. Brightness, colour, contrast, sharpness: what is added to the factor 1.
            Posterising: bits kept. Solarising: the lowest level that is inverted.

    Returns:
        As ``pixels``, a new tensor.
    """
    moved = _move(pixels, operations, magnitudes)
    return _blend(_map_levels(moved, operations, magnitudes), operations, magnitudes)


def _only(operation: Operation, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """The magnitudes (n,) of one operation, and 0 for the images that have another."""
    return magnitudes * (operations == operation)


def _inverse_matrices(operations: Tensor, magnitudes: Tensor, *, height: int, width: int) -> Tensor:
    """From a pixel's place in the result to its place in the image, both about the image's centre.

    Returns:
        float32 (n, 2, 3): from pixels to halves of the image's width, then of its height, as ``grid_sample`` counts.
    """
    # In float64, as Python computes them for a single image; only n numbers. Apple's GPUs have none.
    exact = magnitudes if magnitudes.device.type == "mps" else magnitudes.double()
    angle = torch.deg2rad(_only(Operation.ROTATE, operations, exact))
    shear_x = _only(Operation.SHEAR_X, operations, exact)
    shear_y = _only(Operation.SHEAR_Y, operations, exact)
    # Shears leave the image's top left corner where it is, which is half the size from the centre.
    shift_x = (width * 0.5 + shear_x * (height * 0.5)) - width * 0.5
    shift_y = (shear_y * (width * 0.5) + height * 0.5) - height * 0.5
    shift_x = shift_x - _only(Operation.TRANSLATE_X, operations, exact).trunc()
    shift_y = shift_y - _only(Operation.TRANSLATE_Y, operations, exact).trunc()
    cosine, sine = angle.cos(), angle.sin()
    across = torch.stack((cosine, shear_x - sine, shift_x), dim=1).float() / (width * 0.5)
    down = torch.stack((shear_y + sine, cosine, shift_y), dim=1).float() / (height * 0.5)
    return torch.stack((across, down), dim=1)


def _move(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Shears, translates or rotates: the nearest pixel, black where there is none."""
    height, width = pixels.shape[-2:]
    matrices = _inverse_matrices(operations, magnitudes, height=height, width=width)
    # Pixel centres, the middle of the image at 0.
    columns = torch.arange(width, device=pixels.device) - (width - 1) * 0.5
    rows = (torch.arange(height, device=pixels.device) - (height - 1) * 0.5)[:, None]
    # Sums element by element, not a matrix product: that would follow the settings for TensorFloat-32 and autocast,
    # whose few digits choose wrong pixels.
    by_column, by_row, shift = matrices[..., None, None].unbind(2)
    grid = (by_column * columns + by_row * rows + shift).permute(0, 2, 3, 1)
    return functional.grid_sample(pixels, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _map_levels(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Posterises, solarises, stretches or equalises: all that replaces a level of a channel by another."""
    count, channels = pixels.shape[:2]
    lowest, highest = pixels.amin(dim=(2, 3))[..., None], pixels.amax(dim=(2, 3))[..., None]
    levels = torch.arange(LEVELS, device=pixels.device)

    dropped_bits = (8 - magnitudes.to(torch.int64)) * (operations == Operation.POSTERIZE)
    posterised = levels >> dropped_bits[:, None] << dropped_bits[:, None]

    # No level reaches the threshold of an image that is not solarised.
    threshold = magnitudes.masked_fill(operations != Operation.SOLARIZE, LEVELS)[:, None]
    solarised = torch.where(posterised >= threshold, (LEVELS - 1) - posterised, posterised)

    kept = (operations != Operation.AUTO_CONTRAST)[:, None, None] | (lowest == highest)
    scale = (LEVELS - 1) / (highest - lowest).masked_fill_(kept, LEVELS - 1)
    offset = lowest.masked_fill(kept, 0)
    stretched = ((solarised[:, None] - offset) * scale).clamp_(0, LEVELS - 1).floor_()

    # One table a channel, end to end. Positions of 32 bits: on a host, moving them costs more than the arithmetic.
    starts = torch.arange(0, count * channels * LEVELS, LEVELS, dtype=torch.int32, device=pixels.device)
    positions = (pixels.to(torch.int32) + starts.view(count, channels, 1, 1)).flatten()
    histogram = torch.zeros(count * channels * LEVELS, device=pixels.device)
    histogram.index_add_(0, positions, torch.ones(1, device=pixels.device).expand_as(positions))
    equalised = _equalised(histogram.view(count, channels, LEVELS), highest.to(torch.int64))
    table = torch.where((operations == Operation.EQUALIZE)[:, None, None], equalised, stretched)
    return table.flatten().index_select(0, positions).view(pixels.shape)


def _equalised(histogram: Tensor, highest: Tensor) -> Tensor:
    """For each level of each channel the one that spreads the levels evenly over the pixels.

    Args:
        histogram: float32 (n, channels, 256), pixels of each level; whole numbers, exact up to 2**24 pixels, and so is
            the floor of their quotients.
        highest: int64 (n, channels, 1), the highest level that any pixel has.

    Returns:
        float32 (n, channels, 256).
    """
    through = histogram.cumsum(dim=2)
    step = ((through[..., -1:] - histogram.gather(2, highest)) / (LEVELS - 1)).floor_()
    spread = (through - histogram + (step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(max=LEVELS - 1)
    return torch.where(step == 0, torch.arange(LEVELS, device=histogram.device), spread)


def _blend(pixels: Tensor, operations: Tensor, magnitudes: Tensor) -> Tensor:
    """Moves each image away from a duller one, or towards it: black, grey, of one level, or blurred.

    It writes into ``pixels``, to touch less memory.
    """
    channels, height, width = pixels.shape[1:]
    grey = pixels
    if channels == 3:
        grey = (0.2989 * pixels[:, :1] + 0.587 * pixels[:, 1:2] + 0.114 * pixels[:, 2:]).floor_()
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    color, contrast, sharpness, brightness = (
        _only(operation, operations, magnitudes)[:, None, None, None]
        for operation in (Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS, Operation.BRIGHTNESS)
    )
    # An image without colours has none to change, and a tiny one no pixel inside its border.
    if channels == 1:
        color = torch.zeros_like(color)
    if min(height, width) <= 2:
        sharpness = torch.zeros_like(sharpness)
    # At most one of the four is not 0, and a product with 0 leaves whole numbers as they are.
    away = grey * color + mean * contrast
    blurred = _blurred(pixels).mul_(sharpness)
    pixels.mul_(1 + (color + contrast + sharpness + brightness)).sub_(away).sub_(blurred)
    return pixels.clamp_(0, LEVELS - 1).floor_()


def _blurred(pixels: Tensor) -> Tensor:
    """Each pixel averaged with its eight neighbours, itself five times; the outermost pixels as they are."""
    lines = (pixels[..., :-2, :] + pixels[..., 1:-1, :]).add_(pixels[..., 2:, :])
    sums = (lines[..., :-2] + lines[..., 1:-1]).add_(lines[..., 2:]).add_(pixels[..., 1:-1, 1:-1], alpha=4)
    blurred = pixels.clone()
    # Thirteenths are never halfway between whole numbers, so rounding is the same in any arithmetic.
    blurred[..., 1:-1, 1:-1] = sums.div_(13).round_()
    return blurred
